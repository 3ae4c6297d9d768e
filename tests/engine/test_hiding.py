"""What looks like a secret is not shown in a text, and nothing else is taken from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccat_ops_db.plan.hiding import HIDDEN, hide


@pytest.mark.parametrize(
    "text",
    [
        "the output 'science/passwd' cannot be kept: it is a symbolic link that leads out",
        "config.json: unexpected token } in line 4, column 2",
        "SyntaxError: Unexpected token : in JSON at position 17",
        "SyntaxError: Unexpected token: '}'",
        'sqlite3.OperationalError: unrecognized token: "@"',
        "ParserError: Error tokenizing data. C error: Expected 3 fields in line 5, saw 4",
        "not well-formed (invalid token): line 4, column 2",
        "tokenize.TokenError: ('EOF in multi-line statement', (2, 0))",
        "NoCredentialsError: Unable to locate credentials",
        'FATAL: password authentication failed for user "ccat"',
        "cat: /etc/passwd: No such file or directory",
        "mkdir -p /data/secret failed",
        "rm: /run/secrets: Permission denied",
        "TokenException: Unbalanced bracket",
        "UserWarning: SecretsWarning: Deprecated since 3.0",
        "--token missing; see --help",
        "the secret key was not found in /etc/keys, nor a private key in ~/.ssh",
        "the access key has expired",
        "error: option --token cannot be empty",
        "error: argument --password: expected one argument",
        "no password: cannot log in",
        "the bearer token has expired",
        "basic calibration of 3 scans failed",
        "the authorization server did not answer",
    ],
)
def test_a_sentence_that_only_speaks_of_secrets_keeps_every_word(text: str) -> None:
    assert hide((), text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("TOKEN=hush make", f"TOKEN={HIDDEN} make"),
        ("token = hush, then", f"token = {HIDDEN} then"),
        ("MY_API_KEY: hush", f"MY_API_KEY: {HIDDEN}"),
        ("password:hush", f"password:{HIDDEN}"),
        ("unexpected token=hush", f"unexpected token={HIDDEN}"),
        ("unexpected password: hush", f"unexpected password: {HIDDEN}"),
        ('{"password": "so hush", "a": 1}', f'{{"password": {HIDDEN}, "a": 1}}'),
        ("{'config/token': 'hush'}", f"{{'config/token': {HIDDEN}}}"),
        ("password: no.hush", f"password: {HIDDEN}"),
        ("password: 'is hush'", f"password: {HIDDEN}"),
        ("curl --password hush -o x", f"curl --password {HIDDEN} -o x"),
        ("curl --api-key 'so hush' -o x", f"curl --api-key {HIDDEN} -o x"),
        ("java -keyring.token hush", f"java -keyring.token {HIDDEN}"),
        ("Command '['curl', '--token', 'hush']' returned 1", f"Command '['curl', '--token', {HIDDEN}]' returned 1"),
        ("['--token','hush']", f"['--token',{HIDDEN}]"),
        ("Authorization: Bearer hush", f"Authorization: {HIDDEN}"),
        ("Authorization: token hush", f"Authorization: {HIDDEN}"),
        ("sent Bearer hush to it", f"sent Bearer {HIDDEN} to it"),
        ("sent Authorization Basic hush", f"sent Authorization Basic {HIDDEN}"),
        ("CREATE USER me PASSWORD 'so hush'", f"CREATE USER me PASSWORD {HIDDEN}"),
        ("setenv ARCHIVE_TOKEN hush", f"setenv ARCHIVE_TOKEN {HIDDEN}"),
        ("machine archive login me password hush", f"machine archive login me password {HIDDEN}"),
        ("fatal: https://me:hush@archive/data", f"fatal: https://{HIDDEN}@archive/data"),
    ],
)
def test_a_secret_is_hidden_and_the_text_around_it_is_kept(text: str, shown: str) -> None:
    assert hide((), text) == shown
    assert hide((), shown) == shown, "what was hidden once is as good as new"


WAYS = [
    "{}=S",
    "{}: S",
    "{}:S",
    "{} = 'S'",
    '"{}": "S"',
    "--{} S",
    "--{}=S",
    "--{} 'S'",
    "['--{}', 'S']",
    "setenv {} S",
]
NAMES = [
    "token",
    "ARCHIVE_TOKEN",
    "password",
    "db-passwd",
    "secretKey",
    "api_key",
    "credentials",
    "ssh-key",
    "x_token_2",
]
WORDS = st.text("abc :'\"/.-\n", max_size=12)


@given(st.sampled_from(WAYS), st.sampled_from(NAMES), WORDS, WORDS)
def test_no_text_around_a_secret_uncovers_it(way: str, name: str, before: str, after: str) -> None:
    text = f"{before} {way.format(name).replace('S', 'hunter2')} {after}"
    assert "hunter2" not in hide((), text)
