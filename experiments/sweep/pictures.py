"""Pictures of a grid."""
