"""Who may ask the server: addresses, TLS, API keys.

settings      the table [security] of a profile
access        secrets that it names, the flags of tritonserver that follow, how our own programs get in
certificates  `make certs`: an authority, and certificates of a server and a client
keys          `make keys`: new API keys
"""
