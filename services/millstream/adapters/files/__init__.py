"""Files: contracts, tables and local stores."""
