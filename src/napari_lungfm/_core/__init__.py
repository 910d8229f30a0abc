"""What every layer shares: errors, type aliases, optional imports, safe file writing."""
