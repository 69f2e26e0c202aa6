"""A BMC that speaks Redfish, after DSP0266, and certificates for it."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from devices import Asked, Reply

_USUAL = ("On", "ForceOff", "GracefulShutdown", "ForceRestart", "PushPowerButton")
_SESSIONS = "/redfish/v1/SessionService/Sessions"


@dataclass
class RedfishBmc:
    """A service with one system or more, which takes Basic, sessions or both."""

    password: str = "right horse"
    state: str = "Off"
    allowed: tuple[str, ...] | None = _USUAL
    by_info: bool = False  # the kinds are in an ActionInfo resource
    systems: tuple[str, ...] = ("/redfish/v1/Systems/Self",)
    basic: str = "advertised"  # "unadvertised", "off"
    sessions: dict[str, str] = field(default_factory=dict)
    resets: list[str] = field(default_factory=list)
    logins: int = 0
    operator: bool = True
    target: str = "/redfish/v1/Systems/Self/Actions/ComputerSystem.Reset"

    def answer(self, asked: Asked) -> Reply:
        if asked.path == _SESSIONS and asked.method == "POST":
            return self._log_in(asked)
        if not self._knows(asked):
            words = {"WWW-Authenticate": 'Basic realm="Redfish"'} if self.basic == "advertised" else {}
            return Reply(_error("There is no valid session established."), 401, words)
        if asked.path.startswith(_SESSIONS) and asked.method == "DELETE":
            self.sessions.pop(asked.path, None)
            return Reply(None, 204)
        if asked.path == "/redfish/v1/Systems":
            return Reply({"Members": [{"@odata.id": path} for path in self.systems]})
        if asked.path in self.systems:
            return Reply({"@odata.id": asked.path, "PowerState": self.state, "Actions": self._actions()})
        if asked.path == "/redfish/v1/Systems/Self/ResetActionInfo":
            values = list(self.allowed or ())
            return Reply({"Parameters": [{"Name": "ResetType", "AllowableValues": values}]})
        if asked.path == self.target and asked.method == "POST":
            return self._reset(json.loads(asked.body)["ResetType"])
        return Reply(_error("The resource was not found."), 404)

    def _log_in(self, asked: Asked) -> Reply:
        self.logins += 1
        words = json.loads(asked.body)
        if words != {"UserName": "ops", "Password": self.password}:
            return Reply(_error("Invalid username or password."), 401)
        place = f"{_SESSIONS}/{len(self.sessions) + 1}"
        self.sessions[place] = f"token-{place}"
        return Reply(
            {}, 201, {"X-Auth-Token": self.sessions[place], "Location": f"https://bmc.example{place}"}
        )

    def _knows(self, asked: Asked) -> bool:
        if asked.headers.get("x-auth-token") in self.sessions.values():
            return True
        if self.basic == "off" or "authorization" not in asked.headers:
            return False
        self.logins += 1
        expected = "Basic " + base64.b64encode(f"ops:{self.password}".encode()).decode()
        return asked.headers["authorization"] == expected

    def _actions(self) -> dict[str, object]:
        action: dict[str, object] = {"target": self.target}
        if self.by_info:
            action["@Redfish.ActionInfo"] = "/redfish/v1/Systems/Self/ResetActionInfo"
        elif self.allowed is not None:
            action["ResetType@Redfish.AllowableValues"] = list(self.allowed)
        return {"#ComputerSystem.Reset": action}

    def _reset(self, kind: str) -> Reply:
        if not self.operator:
            return Reply(_error("There are insufficient privileges for the account."), 403)
        if self.allowed is not None and kind not in self.allowed:
            return Reply(_error(f"The value {kind} is not in the list of acceptable values."), 400)
        self.resets.append(kind)
        self.state = {"ForceOff": "Off", "PushPowerButton": "Off" if self.state == "On" else "On"}.get(
            kind, "On"
        )
        return Reply(None, 204)


def _error(words: str) -> dict[str, object]:
    return {"error": {"code": "Base.1.8.GeneralError", "@Message.ExtendedInfo": [{"Message": words}]}}


def certificate(folder: Path, address: str = "127.0.0.1") -> tuple[Path, ssl.SSLContext]:
    """Return the file of a certificate that signs itself, for this address, and how to serve with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a BMC")])
    from_day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(from_day)
        .not_valid_after(from_day + datetime.timedelta(days=36500))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, both = folder / f"{address}.pem", folder / f"{address}-key.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both.write_bytes(pem + file.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return file, context
