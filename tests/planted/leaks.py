"""Secrets of many kinds, each in a file of its own, and what only looks like one.

They are drawn by a seeded generator from pieces, so that every run plants the same ones and none is
in a file of this project.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import string
import uuid
from dataclasses import dataclass
from pathlib import Path

from tests.planted.marked import read_marked

LETTERS = string.ascii_letters + string.digits
_UPPER = string.ascii_uppercase + string.digits
_LOWER = string.ascii_lowercase + string.digits
_HEX = "0123456789abcdef"
_URL = LETTERS + "-_"
_DASHES = "-" * 5


@dataclass(frozen=True)
class Secret:
    """A planted secret.

    Args:
        path: the file it is in.
        text: the file.
        value: what must not be shown anywhere.
    """

    path: str
    text: str
    value: str


class Maker:
    """Makes secrets from a seed; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self._source = random.Random(seed)  # noqa: S311

    def some(self, length: int, alphabet: str = LETTERS) -> str:
        """Characters of all three kinds that the alphabet has, in no order."""
        while True:
            made = "".join(self._source.choice(alphabet) for _ in range(length))
            kinds = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
            if length < 8 or all(
                set(made) & set(kind) for kind in kinds if set(kind) & set(alphabet)
            ):
                return made

    def word(self) -> str:
        """A password as people make them: "Harbour-47-Lantern"."""
        words = ("Harbour", "Lantern", "Quartz", "Meadow", "Falcon", "Velvet", "Copper", "Willow")
        first, second = self._source.sample(words, 2)
        return f"{first}-{self.some(2, string.digits)}-{second}"

    def shouted(self) -> str:
        """The other way: "Lantern2019!"."""
        return f"{self.word().partition('-')[0]}{self.some(4, '23456789')}!"

    def key(self, kind: str, lines: int = 12) -> str:
        """A private key, as a PEM block that holds nothing."""
        body = "\n".join(self.some(64, LETTERS + "+/") for _ in range(lines))
        mark = f"{kind}PRIVATE KEY"
        return f"{_DASHES}BEGIN {mark}{_DASHES}\n{body}\n{_DASHES}END {mark}{_DASHES}"

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._source.getrandbits(128), version=4))


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _address(scheme: str, user: str, password: str, host: str) -> str:
    return f"{scheme}://{user}:{password}@{host}"


def planted(maker: Maker) -> list[Secret]:
    """Secrets that are in files."""
    made: list[Secret] = []

    def plant(path: str, value: str, text: str = "{}") -> None:
        made.append(Secret(path, text.replace("{}", value) + "\n", value))

    _of_vendors(maker, plant)
    _keys_and_passwords(maker, plant)
    return made


def _of_vendors(maker: Maker, plant) -> None:  # type: ignore[no-untyped-def]
    some = maker.some
    upper = "ABCDEFGHJKLMNPQRSTUVWXYZ234567"
    plant("vendors/aws_id.py", "AKIA" + some(16, upper), 'CLIENT = connect("{}")')
    plant("vendors/aws_session.sh", "ASIA" + some(16, upper), "export ID={}")
    plant("vendors/aws.env", some(40, LETTERS + "/+"), "AWS_SECRET_ACCESS_KEY={}")
    plant("vendors/credentials", some(40, LETTERS + "/+"), "[default]\naws_secret_access_key = {}")
    for kind in ("ghp", "gho", "ghu", "ghs", "ghr"):
        plant(f"vendors/{kind}.txt", f"{kind}_{some(36)}", "token {}")
    plant("vendors/fine.yaml", f"github_pat_{some(22)}_{some(59)}", "with: {value: '{}'}")
    plant("vendors/gitlab.toml", f"glpat-{some(20, _URL)}", 'private = "{}"')
    plant("vendors/runner.toml", f"glrt-{some(20, _URL)}", 'runner = "{}"')
    numbers = "123456789"
    bot = f"xoxb-{some(12, numbers)}-{some(12, numbers)}-{some(24)}"
    plant("vendors/slack.json", bot, '{"bot": "{}"}')
    hook = f"T{some(10, _UPPER)}/B{some(10, _UPPER)}/{some(24)}"
    plant("vendors/slack_hook.py", hook, 'HOOK = "https://hooks.slack.com/services/{}"')
    plant("vendors/stripe.js", f"sk_live_{some(24)}", 'const stripe = require("stripe")("{}");')
    plant("vendors/stripe_restricted.rb", f"rk_live_{some(24)}", 'Stripe.key = "{}"')
    plant("vendors/npmrc", f"npm_{some(36)}", "//registry.test/:_authToken={}")
    plant("vendors/pypirc", f"pypi-AgEIcHlwaS5vcmc{some(70, _URL)}", "[pypi]\npassword = {}")
    plant("vendors/google.ts", f"AIza{some(35, _URL)}", 'load({ key: "{}" });')
    account = {
        "type": "service_account",
        "project_id": "shop-live",
        "private_key_id": some(40, _HEX),
        "private_key": maker.key("") + "\n",
        "client_email": "deploy@shop-live.iam.test",
    }
    key = json.dumps(account["private_key"])[1:-1]
    plant("vendors/service-account.json", key, json.dumps(account, indent=2).replace(key, "{}"))
    storage = some(86, LETTERS + "+/") + "=="
    connection = "DefaultEndpointsProtocol=https;AccountName=shop;AccountKey={};"
    plant("vendors/azure.env", storage, f'STORAGE="{connection}EndpointSuffix=core.test"')
    plant("vendors/azure_app.tf", f"{some(3)}8Q~{some(34, _URL)}", 'client_secret = "{}"')
    plant("vendors/sendgrid.py", f"SG.{some(22)}.{some(43)}", 'mail = Mail("{}")')
    plant("vendors/twilio.php", f"SK{some(32, _HEX)}", '$twilio = new Client("{}");')
    plant("vendors/telegram.yml", f"{some(10, numbers)}:A{some(34, _URL)}", 'telegram_bot: "{}"')
    plant("vendors/ocean.tf", f"dop_v1_{some(64, _HEX)}", 'provider "x" { value = "{}" }')
    plant("vendors/vault.hcl", f"hvs.{some(92, _URL)}", 'auth = "{}"')
    plant("vendors/openai.py", f"sk-{some(20)}T3BlbkFJ{some(20)}", 'client = Client("{}")')
    plant("vendors/anthropic.env", f"sk-ant-api03-{some(93, _URL)}AA", "CLAUDE={}")
    plant("vendors/hub.py", f"hf_{some(34, string.ascii_letters)}", 'login("{}")')
    plant("vendors/docker.txt", f"dckr_pat_{some(27, _URL)}", "docker login -u bot -p {}")
    plant("vendors/shopify.rb", f"shpat_{some(32, _HEX)}", 'shop = "{}"')
    plant("vendors/datadog.yaml", some(32, _HEX), "datadog_api_key: {}")
    plant("vendors/terraform.rc", f"{some(14)}.atlasv1.{some(65)}", 'credentials { v = "{}" }')


def _keys_and_passwords(maker: Maker, plant) -> None:  # type: ignore[no-untyped-def]
    some, word = maker.some, maker.word
    for name, kind in {
        "rsa.key": "RSA ", "ec.key": "EC ", "id_ed25519": "OPENSSH ", "pkcs8.pem": "",
        "locked.pem": "ENCRYPTED ",
    }.items():  # fmt: skip
        plant(f"keys/{name}", maker.key(kind))
    plant("keys/backup.asc", maker.key("PGP ").replace("KEY-", "KEY BLOCK-"))
    plant("keys/age.txt", f"AGE-SECRET-KEY-1{some(58, 'QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L')}")
    jwt = (_part(b'{"alg":"HS256","typ":"JWT"}'), _part(b'{"sub":"12345","iat":1516239022}'))
    plant("keys/jwt.http", ".".join([*jwt, _part(some(32).encode())]), "GET / HTTP/1.1\nCookie: {}")
    for scheme in ("postgresql", "mysql+pymysql", "mongodb+srv", "redis", "amqp", "https"):
        user = "" if scheme == "redis" else "app"
        value = some(14)
        plant(f"addresses/{scheme}.cfg", value, _address(scheme, user, "{}", "db.internal/x"))
    plant(
        "addresses/remote.sh", some(16), f"git clone {_address('https', 'bot', '{}', 'git.test/a')}"
    )
    plant(
        "addresses/jdbc.xml",
        word(),
        "<url>jdbc:mysql://db.internal/x?user=app&amp;password={}</url>",
    )
    plant("addresses/netrc", some(12), "machine api.internal\n  login bot\n  password {}")
    plant("addresses/pgpass", word(), "db.internal:5432:shop:app:{}")
    plant("named/settings.py", some(40), 'api_key = "{}"')
    plant("named/values.yaml", word(), "database:\n  user: app\n  password: {}")
    plant("named/quoted.yaml", word(), 'smtp:\n  password: "{}"')
    plant("named/app.toml", some(32), '[client]\nsecret = "{}"')
    plant("named/config.json", some(32), '{"client_secret": "{}"}')
    plant("named/web.env", maker.shouted(), "PORT=80\nDB_PASSWORD={}")
    plant("named/application.properties", word(), "spring.datasource.password={}")
    plant("named/shouted.py", maker.shouted(), 'connect(user="app", password="{}")')
    plant("named/default.py", maker.shouted(), 'def login(user, password="{}"):\n    ...')
    plant("named/wp-config.php", maker.shouted(), "define('DB_PASSWORD', '{}');")
    plant("named/server.xml", maker.shouted(), "<server><password>{}</password></server>")
    plant("named/main.tf", maker.shouted(), 'resource "db" "a" {\n  password = "{}"\n}')
    plant("named/Dockerfile", word(), "FROM debian:12.8\nENV DB_PASSWORD={}\nUSER app")
    plant("named/deploy.sh", maker.shouted(), "mysql --user=app --password='{}' shop")
    plant("named/curl.sh", word(), 'curl -u "deploy:{}" https://files.internal/x')
    plant("named/bearer.sh", some(40), 'curl -H "Authorization: Bearer {}" https://api.internal')
    plant("named/random.py", some(40), 'a = "{}"')
    plant("named/random.env", some(40), "FOO={}")
    plant(
        "named/allowed.py", f"ghp_{some(36)}", 'T = "{}"  # gitleaks:allow pragma: allowlist secret'
    )
    secret = some(40)
    encoded = base64.b64encode(f"ghp_{some(36)}".encode()).decode()
    plant("named/secret.yaml", encoded, "apiVersion: v1\nkind: Secret\ndata:\n  value: {}")
    auth = base64.b64encode(f"bot:{secret}".encode()).decode()
    plant("named/docker-config.json", auth, '{"auths": {"registry.test": {"auth": "{}"}}}')


def harmless(maker: Maker) -> dict[str, str]:
    """What looks like a secret and is none, by file."""
    some = maker.some
    digest = hashlib.sha256(some(9).encode()).hexdigest()
    sum512 = base64.b64encode(hashlib.sha512(digest.encode()).digest()).decode()
    public = some(60)
    made = {
        "Dockerfile": f"FROM python@sha256:{digest}\nUSER app",
        "digest.py": f'digest = "{digest}"\ncommit = "{digest[:40]}"\ntoken_hash = "{digest}"',
        "aws.py": 'K = "AKIAIOSFODNN7EXAMPLE"',
        "account.py": 'account = "123456789012"\nrole = "arn:aws:iam::123456789012:role/Deploy"',
        "changeme.py": 'password = "changeme"\npasswd = "<password>"\npwd = "********"',
        "placeholder.env": "DB_PASSWORD=${DB_PASSWORD}\nAPI_KEY=<your-api-key>\nTOKEN=\nSECRET=xxx",
        "empty.env": "DB_PASSWORD=\nDB_HOST=db\nDB_PORT=5432",
        "uuid.py": f'u = "{maker.uuid()}"',
        "requirements.txt": f"anyio==4.4 --hash=sha256:{digest}",
        "package-lock.json": f'{{"integrity": "sha512-{sum512}"}}',
        "go.sum": f"example.test/x v1.0.0 h1:{sum512[:43]}=",
        "url.py": 'u = "postgres://user:password@localhost/db"\nv = "https://${USER}:${KEY}@host/"',
        "port.py": 'u = "http://localhost:8080/a@b"\nv = "redis://cache:6379/0"',
        "ssh.cfg": "git@github.test:owner/project.git\nssh://git@github.test:2222/owner/x.git",
        "env.py": 'password = os.environ["DB_PASSWORD"]\ntoken = get_token(name)\nkey = keys[name]',
        "form.html": '<input type="password" name="password" placeholder="Password1">',
        "label.py": 'PASSWORD_LABEL = "Enter your password"\nTOKEN_TYPE = "Bearer"',
        "field.py": 'password_field = "password1"\nsecret_name = "shop/database/password"',
        "error.py": 'raise ValueError("password must have 8 characters, 1 digit and 1 symbol!")',
        "annotated.py": "def login(password: str, token: SecretStr | None = None) -> None: ...",
        "call.py": "client = Client(password=settings.password, api_key=read_key(path))",
        "alphabet.py": f'A = "{LETTERS}+/"',
        "known_hosts": f"git.test ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA{some(43)}",
        "ssh.py": f'K = "AAAAB3NzaC1yc2EAAAADAQABAAAB{public}"',
        "path.py": 'p = "src/buildonce/Stages/test1/Foo2/bar3Baz/qux4Thing"',
        "integrity.html": f'<script integrity="sha384-{_part(some(48).encode())}">',
        "image.css": f'a {{ background: url("data:image/png;base64,iVBORw0KGgo{some(90)}") }}',
        "stack.yaml": "password: ${DB_PASSWORD}\nsecret: !Ref Secret\ntoken: !Sub '${Token}'",
        "resolve.yaml": "Password: '{{resolve:secretsmanager:shop/db:SecretString:password}}'",
        "workflow.yml": "env:\n  TOKEN: ${{ secrets.TOKEN }}\n  PASSWORD: ${{ secrets.PASSWORD }}",
        "helm.yaml": "password: {{ .Values.password | quote }}\nexistingSecret: shop-database",
        "var.tf": "password = var.password\ntoken    = data.vault.token.value",
        "words.py": 'x = "application/vnd.oci.image.manifest.v1+json"',
        "version.toml": 'token-version = "2024.10.31-beta.2"\nkeyboard = "us-international"',
        "public.pem": f"{_DASHES}BEGIN PUBLIC KEY{_DASHES}\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n"
        f"{_DASHES}END PUBLIC KEY{_DASHES}",
        "begin.py": f'MARK = "{_DASHES}BEGIN RSA PRIVATE KEY{_DASHES}"',
        "docs.md": "Set `GITHUB_TOKEN=ghp_...` and `password: your-password-here` first.",
        "base64.py": 'x = "' + base64.b64encode(b"the quick brown fox jumps").decode() + '"',
        "numbers.json": '{"key": 1234567890123456, "token_count": 4096, "secret": false}',
        "locale.po": 'msgid "Forgot your password?"\nmsgstr "Passwort vergessen?"',
        "phone.txt": "+49 30 1234567, DE89 3704 0044 0532 0130 00, 4111 1111 1111 1111",
        "constant.java": "public static final String ACCESS_TOKEN_HEADER_NAME_CONSTANT = null;",
        "regex.py": r'TOKEN = re.compile(r"ghp_[A-Za-z0-9]{36}|xox[bp]-[0-9]{12}")',
        "curl.sh": 'curl -u "$USER:$PASSWORD" -H "Authorization: Bearer $TOKEN" https://api.internal',
        "mysql.sh": 'mysql --user=app --password="$DB_PASSWORD" shop',
        "bot.json": '{"tokenizer": "bert-base-uncased", "keywords": ["password", "secret"]}',
        "certificate.crt": f"{_DASHES}BEGIN CERTIFICATE{_DASHES}\nMIID{some(60)}\n"
        f"{_DASHES}END CERTIFICATE{_DASHES}",
    }  # fmt: skip
    files = read_marked(Path(__file__).parent / "harmless", below="harmless/").files
    return {f"harmless/{name}": f"{text}\n" for name, text in made.items()} | dict(files)
