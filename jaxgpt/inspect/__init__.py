"""Pictures of what a model does with a text: `python -m jaxgpt.inspect FOLDER --prompt TEXT`."""
