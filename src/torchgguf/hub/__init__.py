"""Find files in folders and in repositories of the Hugging Face Hub, and download them."""

from torchgguf.hub.files import HubOptions, find_file, find_files, find_folder, find_gguf
from torchgguf.hub.projectors import find_projectors
from torchgguf.hub.remote import open_remote_gguf
from torchgguf.hub.urls import HubURL, names_gguf_file, parse_url

__all__ = [
    "HubOptions",
    "HubURL",
    "find_file",
    "find_files",
    "find_folder",
    "find_gguf",
    "find_projectors",
    "names_gguf_file",
    "open_remote_gguf",
    "parse_url",
]
