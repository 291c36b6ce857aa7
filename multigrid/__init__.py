"""Progressive-resolution training of UNet surrogates for PDEs."""
