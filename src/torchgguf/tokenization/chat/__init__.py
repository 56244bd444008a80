"""Conversations: chat templates, the sandbox that runs them, the schemas of tools."""
