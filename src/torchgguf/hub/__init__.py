"""Find files in folders and in repositories of the Hugging Face Hub, and download them."""

from torchgguf.hub.files import HubOptions, find_file, find_files, find_folder, find_gguf
from torchgguf.hub.remote import open_remote_gguf

__all__ = ["HubOptions", "find_file", "find_files", "find_folder", "find_gguf", "open_remote_gguf"]
