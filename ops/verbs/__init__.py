"""What people may ask for: each verb checks, does and writes the ledger in one transaction."""
