"""Which version of a library an integration needs."""

from importlib.metadata import PackageNotFoundError, version

from torch.torch_version import TorchVersion

from wellposed.errors import WellposedError

# The oldest versions that the tests ran with; the extras of the package ask for the same.
OLDEST = {"accelerate": "1.15", "lightning": "2.6", "skorch": "1.4", "transformers": "5.23"}


def require(package: str) -> None:
    """Refuse a library that is not installed, or is older than what was tried.

    Raises:
        WellposedError: If it is; the message says what to install.
    """
    oldest = OLDEST[package]
    install = f"install it with: pip install 'wellposed[{package}]'"
    try:
        found = version(package)
    except PackageNotFoundError as error:
        message = f"wellposed.integrations.{package} needs {package}>={oldest}, which is not installed; {install}"
        raise WellposedError(message) from error
    if TorchVersion(found) < oldest:
        raise WellposedError(
            f"wellposed.integrations.{package} found {package} {found}; expected {oldest} or newer, the oldest that it "
            f"was tried with; {install}"
        )
