"""The core's own components: plain GPT-2. Everything else is a plugin."""
