"""The machinery below the stages; it imports nothing from them, and nothing here is public."""
