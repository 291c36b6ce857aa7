"""The UNet family."""
