"""A calibration certificate as files: PDF and HTML from one content, each with a detached signature.

`cell.pdf` and `cell.html` print the SHA-256 of the content (canonical JSON, RFC 8785), the station's signature over it
and the key's fingerprint; the HTML holds that JSON itself. `cell.pdf.sig` and `cell.html.sig` sign the files.
"""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from depthcell.calib.certify.certificate_content import CertificateContent, Picture, canonical_content, content_digest
from depthcell.calib.certify.certificate_sections import Paragraph, Table, head_of, sections_of
from depthcell.calib.seal import BrokenSealError, Seal, fingerprint, sign, verify
from depthcell.errors import DepthcellError
from depthcell.files import write_text, written_beside
from depthcell.webpage import page_templates

TEMPLATE = "certificate.html.j2"
FILE_PURPOSE, CONTENT_PURPOSE = "certificate", "certificate content"


class SignatureFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `<file>.sig` holds, as JSON.

    Attributes:
        schema_version: of this file.
        file: name of the file that is signed.
        sha256: of its bytes.
        fingerprint: of the key, for people.
        public_key, signature: Ed25519, hexadecimal; over "depthcell certificate", a zero byte and the file's bytes.
    """

    schema_version: Literal[1]
    file: str
    sha256: str
    fingerprint: str
    public_key: str
    signature: str


@dataclass(frozen=True, slots=True)
class WrittenCertificate:
    """Where a certificate lies, and who signed it."""

    number: str
    pdf: Path
    html: Path
    key_fingerprint: str


def write_certificate(content: CertificateContent, pdf_path: Path) -> WrittenCertificate:
    """Write `pdf_path`, the HTML beside it, and a signature of each.

    Raises:
        DepthcellError: `pdf_path` does not end in .pdf, or the station has no usable key.
    """
    from depthcell.calib.certify.certificate_pdf import certificate_pdf  # noqa: PLC0415 - reading certificates needs no printer

    if pdf_path.suffix.lower() != ".pdf":
        raise DepthcellError(f"certificate {pdf_path}: must end in .pdf; the HTML is written beside it")
    seal = sign(CONTENT_PURPOSE, canonical_content(content))
    html_path = pdf_path.with_suffix(".html")
    files = {
        pdf_path: certificate_pdf(content, _printed(content, seal)),
        html_path: certificate_html(content, seal).encode(),
    }
    for path, data in files.items():
        with written_beside(path) as partial:
            partial.write_bytes(data)
        _write_signature(path, data)
    return WrittenCertificate(content.number, pdf_path, html_path, fingerprint(seal.public_key))


def verify_certificate(path: Path) -> str:
    """Check a certificate, PDF or HTML, against its signature; returns the fingerprint of the key that signed it.

    Raises:
        DepthcellError: file or signature is missing or damaged, the file was changed, or the key is not trusted.
    """
    try:
        data, signature = path.read_bytes(), msgspec.json.decode(signature_path(path).read_bytes(), type=SignatureFile)
    except OSError as error:
        raise DepthcellError(f"certificate {path}: {error.filename} cannot be read ({error.strerror})") from error
    except msgspec.MsgspecError as error:
        raise DepthcellError(f"certificate {path}: {signature_path(path).name} is no signature: {error}") from error
    try:
        verify(Seal(signature.public_key, signature.signature), FILE_PURPOSE, data)
    except BrokenSealError as error:
        raise DepthcellError(f"certificate {path}: was changed after it was signed; ask for the original") from error
    except DepthcellError as error:
        raise DepthcellError(f"certificate {path}: {error}") from error
    return fingerprint(signature.public_key)


def signature_path(path: Path) -> Path:
    """Where the signature of a certificate lies."""
    return path.with_name(f"{path.name}.sig")


def certificate_html(content: CertificateContent, seal: Seal) -> str:
    """The certificate as one HTML file that asks nobody for anything and runs no script."""
    environment = page_templates(Path(__file__).parent)
    environment.filters["data_uri"] = _data_uri
    environment.tests |= {
        "paragraph": lambda block: isinstance(block, Paragraph),
        "grid": lambda block: isinstance(block, Table),
        "picture": lambda block: isinstance(block, Picture),
    }
    return environment.get_template(TEMPLATE).render(
        content=content,
        head=head_of(content),
        sections=sections_of(content),
        printed=_printed(content, seal),
        json=canonical_content(content).decode(),
    )


def _printed(content: CertificateContent, seal: Seal) -> tuple[tuple[str, str], ...]:
    return (
        ("Key fingerprint", fingerprint(seal.public_key)),
        ("Content, SHA-256", content_digest(content)),
        ("Signature (Ed25519)", seal.signature),
        ("To verify", "depthcell calibrate check FILE, with FILE.sig beside it"),
    )


def _write_signature(path: Path, data: bytes) -> None:
    seal = sign(FILE_PURPOSE, data)
    signature = SignatureFile(
        schema_version=1,
        file=path.name,
        sha256=hashlib.sha256(data).hexdigest(),
        fingerprint=fingerprint(seal.public_key),
        public_key=seal.public_key,
        signature=seal.signature,
    )
    text = msgspec.json.format(msgspec.json.encode(signature), indent=2).decode()
    write_text(signature_path(path), f"{text}\n")


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
