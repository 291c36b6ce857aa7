"""How a network is trained on one grid."""
