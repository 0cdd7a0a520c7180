"""`make audit`: what the server and the client are made of, under which licences, and what is known against it.

make_environments.sh  .venv-audit/runtime: what is installed to serve and to ask; .venv-audit/tools: what looks at it
licences              licences.toml says which are allowed, and why others are all the same
vulnerabilities       pip-audit; what it could not look up counts as a failure
bill_of_materials     CycloneDX
"""
