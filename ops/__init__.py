"""The platform around pipelines and models: configuration, processes, commands."""
