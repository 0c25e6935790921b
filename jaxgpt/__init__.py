"""jaxgpt: which language-model architecture is better, by how much, and how sure are we?"""
