"""The ends of connections, as errors of this library that say what to do next."""

from __future__ import annotations

import os
import ssl

from ..exceptions import LLMCRDTError, RelayRefused, RelayUnreachable
from ..ids import DocumentId
from .messages import ErrorCode

# OpenSSL's X509_V_ERR_*: the certificate is not valid yet, or not any more; it is for another name, or another address.
_TIME, _NAME = (9, 10), (62, 64)


def explained(error: BaseException) -> LLMCRDTError:
    """The error of this library that says what another one means."""
    if isinstance(error, LLMCRDTError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        why = f"The relay's certificate does not pass: {error.verify_message or error.reason}."
        return RelayUnreachable(why, hint=_certificate_hint(error.verify_code))
    return RelayUnreachable(": ".join(filter(None, (type(error).__name__, str(error)))) + ".")


def _certificate_hint(code: int) -> str:
    if code in _TIME:
        return "The relay needs a new certificate, or the clock of this device is wrong."
    if code in _NAME:
        return "Connect to the name that the certificate is for."
    return 'If it is the right relay, say which certificates to trust: --ca FILE, or tls="ca.pem" in Python.'


def deletion_refused(document: DocumentId) -> RelayRefused:
    """The error for the answer DELETED (refused)."""
    return RelayRefused(
        f"The relay keeps its copy of {document}, which was deleted here: it belongs to another subject.",
        hint="The token that wrote it first can delete it there, or one with admin.",
    )


def token_refused(error: BaseException | None) -> RelayRefused | None:
    """The error itself where it says that a relay doesn't take the token, or any more."""
    return error if isinstance(error, RelayRefused) and error.code == ErrorCode.TOKEN_REFUSED else None


def first(error: BaseException) -> BaseException:
    """The first of a group of errors; another one as it is."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def trusting(tls: ssl.SSLContext | str | os.PathLike[str] | None) -> ssl.SSLContext:
    """A context that trusts the given certificates, else those that the system trusts. Raises RelayUnreachable for a
    file that holds no certificates."""
    if isinstance(tls, ssl.SSLContext):
        return tls
    try:
        return ssl.create_default_context(cafile=tls)
    except (OSError, ssl.SSLError) as error:
        raise RelayUnreachable(
            f"{tls} holds no certificates: {error}.", hint="Give a PEM file, or none to trust what the system trusts."
        ) from None
