"""Route prompts between domain-expert language models with a closed-form ridge router."""
