"""The official checkpoints: fetched, verified, and only then given their name.

Open the files in the order in which a download goes through them:

    manifest   which files there are: name, size, SHA-256, where they are published (../weights.toml)
    sources    where to look, in which order; addresses without their secrets
    fetch      lock, look for the file, try the sources in order, verify, rename
    download   one source of the web: tries again, and resumes where it stopped
    transfer   one HTTP request: what the server may answer, and its bytes to the partial file
    identity   whether a file is the one that the manifest names
    failures   why a source did not give the file
"""
