"""`make deploy` and `make undeploy`: from a deploy.toml to an endpoint that answers.

settings       the table [deploy]
server_record  which server of a profile runs, whoever started it
steps          what a deployment does, each step done only where it has something to do
command_line   run another command of this project, its output shown when it fails
"""
