"""The steps a flow is made of."""
