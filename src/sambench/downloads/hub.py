"""Files of the Hugging Face Hub: huggingface_hub finds them, says what they must be and whether we may have them.

Its own downloads start anew after a kill (from 2.0 on every process has its own temporary file), so that the bytes come
by the transfer that all other files come by. Token and address of the hub are what huggingface_hub takes from the
environment: HF_TOKEN, HF_ENDPOINT.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from urllib.parse import urlsplit

import httpx2

from sambench.downloads.catalogue import Download
from sambench.downloads.transfer import TransferError


def serves(url: str) -> bool:
    """Whether an address belongs to the Hub."""
    return urlsplit(url).hostname in ("huggingface.co", "hf.co")


def resolve(url: str, item: Download) -> tuple[str, dict[str, str], Download]:
    """The address to fetch from, the headers to send, and the item with what the Hub knows about its content.

    Raises TransferError when there is no such file, it is gated and the token does not open it, the Hub does not
    answer, or has a file of another size or digest.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, parse_hf_uri
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HfUriError, RepositoryNotFoundError
    from huggingface_hub.utils import build_hf_headers

    try:
        uri = parse_hf_uri(url)
    except HfUriError:
        raise TransferError("no address of a file") from None
    if not uri.path_in_repo:
        raise TransferError("the page of a repository, not a file")
    # Read here and not only by huggingface_hub, which does so once when it is imported.
    endpoint = os.environ.get("HF_ENDPOINT") or None
    address = hf_hub_url(uri.id, uri.path_in_repo, repo_type=uri.type, revision=uri.revision, endpoint=endpoint)
    headers = build_hf_headers()
    try:
        known = get_hf_file_metadata(address, headers=headers, retry_on_errors=True)
    except GatedRepoError:
        raise TransferError(f"a gated file: agree to its licence at huggingface.co/{uri.id} and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise TransferError(f"no repository {uri.id}, or a private one that HF_TOKEN does not open") from None
    except HfHubHTTPError as error:
        raise TransferError(f"HTTP {error.response.status_code}") from None
    except (httpx2.TransportError, OSError) as error:
        raise TransferError(" ".join(str(error).split()) or type(error).__name__) from None
    # The tag of a large file is its SHA-256, that of a small one its git blob.
    tag = known.etag or ""
    kind = "sha256" if re.fullmatch("[0-9a-f]{64}", tag) else "git_blob" if re.fullmatch("[0-9a-f]{40}", tag) else ""
    if item.bytes is not None and known.size is not None and known.size != item.bytes:
        raise TransferError(f"{known.size} bytes")
    if kind and getattr(item, kind) and getattr(item, kind) != tag:
        raise TransferError(f"{kind} {tag}")
    facts = {"bytes": item.bytes if item.bytes is not None else known.size} | ({kind: tag} if kind else {})
    return address, headers, replace(item, **facts)  # type: ignore[arg-type]
