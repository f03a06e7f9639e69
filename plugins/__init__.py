"""The plugins that come with GPTZoo, registered through the same hook as a stranger's."""
