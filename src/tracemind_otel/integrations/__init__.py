"""Other people's runtimes, traced: each is imported only where it is used."""
