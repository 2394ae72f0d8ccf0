"""The control API's addresses, by what they concern; each calls one verb of the service."""
