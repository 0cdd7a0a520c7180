"""`make plan`: from a few answers to a commented deploy.toml.

answers      the questions, and answers from a file, from flags or from a person
decide       the decision table: decisions.toml, whose rows are tried from the top
deploy_file  deploy.toml: a profile with a table [deploy], each line with its reason
"""
