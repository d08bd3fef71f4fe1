import json

import pytest

from loso.errors import BadInput, MissingExtra, Refused
from loso.model import signing
from loso.model.signing import check_signature, require_key, sign_folder

pytest.importorskip("model_signing")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa


def write_keys(folder, name, private):
    """Write a key pair as PEM files and return their paths."""
    secret, public = folder / f"{name}.pem", folder / f"{name}.pub"
    secret.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return secret, public


@pytest.fixture
def keys(tmp_path):
    return write_keys(tmp_path, "key", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def folder(tmp_path):
    """A folder with a file, a folder in it, and what is private."""
    path = tmp_path / "model"
    (path / "sub").mkdir(parents=True)
    (path / "a.onnx").write_bytes(b"graph")
    (path / "registry.json").write_text('{"smoke": true}')
    (path / "sub" / "b.txt").write_text("b")
    (path / ".lock").write_text("")
    return path


def test_what_was_signed_is_vouched_for(folder, keys):
    sign_folder(folder, keys[0])
    check_signature(folder, keys[1])
    bundle = json.loads((folder / "model.sig").read_text())
    assert bundle["mediaType"].startswith("application/vnd.dev.sigstore.bundle")
    assert not bundle["verificationMaterial"].get("tlogEntries")  # no public log was asked


def test_the_packages_own_tool_agrees(folder, keys):
    """What loso signs, the package's defaults verify: nothing is hashed in a way of our own."""
    from model_signing import verifying

    sign_folder(folder, keys[0])
    config = verifying.Config().use_elliptic_key_verifier(public_key=keys[1])
    config.verify(folder, folder / "model.sig")
    (folder / "a.onnx").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"Hash mismatch for .*a\.onnx"):
        config.verify(folder, folder / "model.sig")


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda d: (d / "a.onnx").write_bytes(b"other"), r"Hash mismatch for .*a\.onnx"),
        (lambda d: (d / "registry.json").write_text("{}"), r"Hash mismatch for .*registry\.json"),
        (lambda d: (d / "sub/b.txt").write_text(""), r"Hash mismatch for .*sub/b\.txt"),
        (lambda d: (d / "new.txt").write_text(""), r"Extra files found in model 'model': new\.txt"),
        (lambda d: (d / "a.onnx").unlink(), r"Missing files in model 'model': a\.onnx"),
        (lambda d: (d / "model.sig").write_text("{}"), "the signature does not hold"),
        (lambda d: (d / "model.sig").write_text("no JSON"), "the signature does not hold"),
        (lambda d: (d / "model.sig").unlink(), r"model\.sig: no signature; sign the folder"),
    ],
)
def test_a_folder_that_changed_is_refused(folder, keys, edit, text):
    sign_folder(folder, keys[0])
    edit(folder)
    with pytest.raises(Refused, match=text):
        check_signature(folder, keys[1])


def test_private_names_may_come_and_go(folder, keys):
    sign_folder(folder, keys[0])
    (folder / ".lock").unlink()
    (folder / ".0123.tmp").write_text("")
    check_signature(folder, keys[1])
    sign_folder(folder, keys[0])
    check_signature(folder, keys[1])


def test_the_signature_of_another_is_refused(folder, keys, tmp_path):
    other = write_keys(tmp_path, "other", ec.generate_private_key(ec.SECP384R1()))
    sign_folder(folder, other[0])
    check_signature(folder, other[1])
    with pytest.raises(Refused, match="the signature does not hold"):
        check_signature(folder, keys[1])


def test_keys_that_cannot_be_used_are_named(folder, keys, tmp_path):
    wrong = write_keys(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    for secret, public in ((tmp_path / "none", tmp_path / "none"), keys[::-1], wrong):
        with pytest.raises(BadInput, match="not a key that can be used"):
            sign_folder(folder, secret)
        with pytest.raises(BadInput, match="not a key that can be used"):
            check_signature(folder, public)
        with pytest.raises(BadInput, match="not a key that can be used"):
            require_key(folder, secret)
    assert not (folder / "model.sig").exists()


def test_a_signed_folder_needs_a_key_to_change(folder, keys):
    require_key(folder, None)
    sign_folder(folder, keys[0])
    require_key(folder, keys[0])
    with pytest.raises(BadInput, match=r"the folder is signed, .* give --sign KEY, or remove"):
        require_key(folder, None)


def test_without_the_package_its_extra_is_named(folder, keys, monkeypatch):
    monkeypatch.setattr(signing, "find_spec", lambda _: None)
    for call in (lambda: sign_folder(folder, keys[0]), lambda: check_signature(folder, keys[1])):
        with pytest.raises(MissingExtra, match=r"pip install 'loso\[sign\]'"):
            call()
    require_key(folder, None)  # who does not sign does not need it
