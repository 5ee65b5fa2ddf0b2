"""The gateway: OpenAI's interface in front of the experts, with the router's choice as the model ``auto``."""
