"""A cheap web server of pictures on many addresses of the loopback network, for benchmarks.

    python -m benchmarks.image_server IMAGES.tar FOLDER

Every host 127.0.0.N answers /I.jpg with file I of the tar, modulo their number. 127.0.1.N refuses
connections, 127.0.2.N takes them and says nothing, 127.0.3.N answers after SLOW_S. The ports, for
http and https, are printed on one line; FOLDER gets the certificate that signs the hosts'.
"""

import asyncio
import datetime
import ipaddress
import ssl
import sys
import tarfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOSTS = 250
DEAD_NET, SILENT_NET, SLOW_NET = (f"127.0.{n}." for n in (1, 2, 3))
ODD_HOSTS = 20
SLOW_S = 3.0
AUTHORITY = "authority.pem"

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def answers(tar_path: str) -> list[bytes]:
    """Return one whole answer for each picture of the tar."""
    with tarfile.open(tar_path) as tar:
        files = [tar.extractfile(member).read() for member in tar if member.isfile()]  # type: ignore[union-attr]
    head = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
    return [head.format(len(body)).encode() + body for body in files]


class Conversation(asyncio.Protocol):
    """One connection: answers requests one after the other, as long as the client keeps it."""

    def __init__(self, pictures: list[bytes]) -> None:
        """Serve `pictures`."""
        self._pictures = pictures
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember who was asked."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._address = transport.get_extra_info("sockname")[0]

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._pending += data
        while b"\r\n\r\n" in self._pending:
            request, _, self._pending = self._pending.partition(b"\r\n\r\n")
            if self._address.startswith(SLOW_NET):
                asyncio.get_running_loop().call_later(SLOW_S, self._answer, request)
            elif not self._address.startswith(SILENT_NET):
                self._answer(request)

    def _answer(self, request: bytes) -> None:
        if self._transport.is_closing():
            return
        name = request.split(b" ", 2)[1][1:].removesuffix(b".jpg")
        known = name.isdigit()
        self._transport.write(
            self._pictures[int(name) % len(self._pictures)] if known else NOT_FOUND
        )
        if b"connection: close" in request.lower() or request.endswith(b"HTTP/1.0"):
            self._transport.close()


def sign(addresses: list[str], folder: Path) -> ssl.SSLContext:
    """Make an authority, written to `folder`, and return a server context for `addresses`."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark authority")])
    now = datetime.datetime.now(datetime.UTC)

    def begin(name: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(authority)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    root = (
        begin(authority, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    leaf = (
        begin(x509.Name([]), key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / AUTHORITY).write_bytes(root.public_bytes(pem))
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(leaf.public_bytes(pem) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


async def serve(pictures: list[bytes], folder: Path) -> None:
    """Serve until killed."""
    addresses = [f"127.0.0.{i + 1}" for i in range(HOSTS)]
    addresses += [f"{net}{i + 1}" for net in (SILENT_NET, SLOW_NET) for i in range(ODD_HOSTS)]
    loop = asyncio.get_running_loop()
    ports, servers = [], []
    for context in (None, sign(addresses, folder)):
        # The first address gets any free port, which all the others then share.
        first = await loop.create_server(
            lambda: Conversation(pictures), addresses[0], 0, ssl=context, backlog=1024
        )
        port = first.sockets[0].getsockname()[1]
        others = await loop.create_server(
            lambda: Conversation(pictures), addresses[1:], port, ssl=context, backlog=1024
        )
        ports.append(port)
        servers += [first, others]
    print(*ports, flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(serve(answers(sys.argv[1]), Path(sys.argv[2])))
