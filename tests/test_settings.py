"""Settings come from the environment, and a wrong one is named."""

from pathlib import Path

import pytest

from mcp_memory.cli.reference import sections, settings_help, settings_page
from mcp_memory.settings import SECTIONS, Settings, load_settings, settings_of
from mcp_memory.values.errors import SettingsFault
from mcp_memory.values.locations import PREFIX


def test_without_an_environment_the_defaults_hold():
    settings = load_settings()
    assert settings.agent == "default"
    assert settings.context_window == 128_000
    assert (settings.warn_at, settings.flush_at, settings.keep_after_flush) == (0.70, 1.0, 0.5)
    assert settings.max_reply_tokens == 2_000
    assert settings.timezone == "UTC"
    assert settings.db.is_absolute()
    assert settings.db.name == "memory.duckdb"


@pytest.mark.parametrize(
    ("name", "value", "field", "read"),
    [
        ("DB", "/data/m.duckdb", "db", Path("/data/m.duckdb")),
        ("AGENT", "ana", "agent", "ana"),
        ("CONTEXT_WINDOW", "32000", "context_window", 32_000),
        ("TOKENIZER", "cl100k_base", "tokenizer", "cl100k_base"),
        ("TIMEZONE", "Europe/Berlin", "timezone", "Europe/Berlin"),
        ("WARN_AT", "0.6", "warn_at", 0.6),
        ("FLUSH_AT", "0.9", "flush_at", 0.9),
        ("KEEP_AFTER_FLUSH", "0.25", "keep_after_flush", 0.25),
        ("OFFLINE", "1", "offline", True),
        ("RETHINK_EVERY", "0", "rethink_every", 0),
        ("SHARED_BLOCKS", "team, human,team", "shared_blocks", ("human", "team")),
        ("CACHE_DIR", "/data/cache", "cache_dir", Path("/data/cache")),
        ("CACHE_MB", "1024", "cache_mb", 1_024),
        ("EMBEDDING_MODEL", "org/model", "embedding_model", "org/model"),
        ("LOG_LEVEL", "debug", "log_level", "debug"),
        ("HTTP_PUBLIC_URL", "https://a.example/m/", "http_public_url", "https://a.example/m"),
        (
            "HTTP_ALLOWED_HOSTS",
            "a.example, b.example:8",
            "http_allowed_hosts",
            ("a.example", "b.example:8"),
        ),
        ("HTTP_ALLOWED_ORIGINS", "", "http_allowed_origins", ()),
        ("HTTP_ISSUER", "https://id.example/", "http_issuer", "https://id.example/"),
        ("HTTP_REQUESTS_PER_MINUTE", "60", "http_requests_per_minute", 60),
    ],
)
def test_a_setting_is_read_from_its_variable(monkeypatch, name, value, field, read):
    monkeypatch.setenv(PREFIX + name, value)
    assert getattr(load_settings(), field) == read


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONTEXT_WINDOW", "many"),
        ("CONTEXT_WINDOW", "10"),
        ("TOKENIZER", "gpt2"),
        ("TIMEZONE", "Mars/Olympus"),
        ("TIMEZONE", "Europe"),
        ("TIMEZONE", "../../etc/passwd"),
        ("MAX_REPLY_TOKENS", "-1"),
        ("SHARED_BLOCKS", "a b"),
        ("SHARED_BLOCKS", "team,working"),
        ("WARN_AT", "70%"),
        ("WARN_AT", "nan"),
        ("WARN_AT", "0"),
        ("FLUSH_AT", "1.5"),
        ("KEEP_AFTER_FLUSH", "1"),
        ("KEEP_AFTER_FLUSH", "-0.1"),
        ("RETHINK_EVERY", "-1"),
        ("OFFLINE", "perhaps"),
        ("CACHE_MB", "1"),
        ("AGENT", "two\nlines"),
        ("AGENT", "a" * 200),
        ("DB", "."),
        ("DB", "~no-such-user-here/memory.duckdb"),
        ("OWNER", "on"),
        ("THREADS", "0"),
        ("LOG_LEVEL", "loud"),
        ("HTTP_PUBLIC_URL", "memory.example.org"),
        ("HTTP_ISSUER", "ftp://id.example"),
        ("HTTP_JWKS_URL", "https://"),
        ("HTTP_MAX_BODY_BYTES", "0"),
        ("HTTP_REQUESTS_PER_MINUTE", "0"),
        ("HTTP_SESSION_IDLE_SECONDS", "0"),
    ],
)
def test_a_value_that_cannot_be_taken_is_named_by_its_variable(monkeypatch, name, value):
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsFault) as fault:
        load_settings()
    assert fault.value.setting == PREFIX + name
    assert "\n" not in str(fault.value)


UNFILLED = [
    "${user_config.value}",
    "${input:value}",
    "${env:VALUE}",
    "${VALUE:-}",
    "${HOME}/memory",
    "$(pwd)/memory",
    "$VALUE",
    "$env:VALUE",
    "%VALUE%",
    "{env:VALUE}",
    "{{value}}",
    "${{ secrets.VALUE }}",
    "<your value>",
    "<YOUR_VALUE>",
]


@pytest.mark.parametrize("name", Settings.model_fields)
@pytest.mark.parametrize("value", ["", " ", "\t\n", *UNFILLED])
def test_a_setting_that_a_host_left_empty_or_unfilled_has_its_default(monkeypatch, name, value):
    default = load_settings()
    assert settings_of({PREFIX + name.upper(): value}) == default
    monkeypatch.setenv(PREFIX + name.upper(), value)
    assert load_settings() == default


@pytest.mark.parametrize(
    "value", ["a$b", "$1", "100%", "{a}", "<ana>", "$", "${", "a < b", "pa$$word", "%a"]
)
def test_what_only_looks_like_a_placeholder_is_a_value(monkeypatch, value):
    monkeypatch.setenv(PREFIX + "AGENT", value)
    assert load_settings().agent == value


def test_a_value_is_read_without_the_blanks_around_it(monkeypatch):
    monkeypatch.setenv(PREFIX + "TIMEZONE", " Europe/Berlin\n")
    assert load_settings().timezone == "Europe/Berlin"


@pytest.mark.parametrize(
    "changes",
    [
        {"KEEP_AFTER_FLUSH": "0.9", "FLUSH_AT": "0.9"},
        {"KEEP_AFTER_FLUSH": "0.95", "FLUSH_AT": "0.9"},
        {"WARN_AT": "0.95", "FLUSH_AT": "0.9"},
    ],
)
def test_thresholds_out_of_order_are_refused_and_named(monkeypatch, changes):
    for name, value in changes.items():
        monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsFault) as fault:
        load_settings()
    assert fault.value.setting.startswith(PREFIX)
    assert all(name in str(fault.value) for name in changes)


def test_a_warning_at_the_very_flush_is_in_order():
    settings = load_settings(warn_at=0.9, flush_at=0.9, keep_after_flush=0.89)
    assert settings.warn_at == settings.flush_at


def test_a_path_is_made_absolute_and_the_home_folder_is_filled_in(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv(PREFIX + "DB", "~/memory/a.duckdb")
    monkeypatch.setenv(PREFIX + "CACHE_DIR", "cache/../models")
    settings = load_settings()
    assert settings.db == tmp_path / "memory" / "a.duckdb"
    assert settings.cache_dir == Path.cwd() / "models"


def test_what_is_given_by_hand_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv(PREFIX + "AGENT", "from-environment")
    assert load_settings(agent="by-hand").agent == "by-hand"


def test_settings_do_not_change_once_they_are_read():
    settings = load_settings()
    with pytest.raises(Exception, match="frozen"):
        settings.agent = "other"
    assert isinstance(settings, Settings)


def test_another_process_s_settings_are_taken_by_name_alone(tmp_path, monkeypatch):
    monkeypatch.setenv(f"{PREFIX}AGENT", "mine")
    (tmp_path / "env").write_text(f"{PREFIX}AGENT=from-a-file\n")
    given = {
        f"{PREFIX}TIMEZONE": "Europe/Berlin",
        f"{PREFIX}_ENV_FILE": str(tmp_path / "env"),
        f"{PREFIX}_ENV_PREFIX": PREFIX,
        "AGENT": "bare",
        "UNKNOWN": "1",
    }
    found = settings_of(given)
    assert (found.timezone, found.agent) == ("Europe/Berlin", "default")


def test_the_page_of_settings_is_the_generated_one():
    page = Path(__file__).parents[1] / "docs" / "settings.md"
    assert page.read_text("utf-8") == settings_page()


def test_page_and_help_show_every_setting_with_what_it_does():
    entries = [entry for _, section in sections() for entry in section]
    assert [entry.name for entry in entries] == [
        PREFIX + name.upper() for name in Settings.model_fields
    ]
    assert [heading for heading, _ in sections()] == list(SECTIONS)
    terminal = " ".join(settings_help().split())
    for entry in entries:
        assert f"| `{entry.name}` | {entry.values} |" in settings_page()
        assert f" {entry.name} {entry.description.replace('`', '')} (" in terminal
        assert entry.values
        assert entry.description.endswith((".", ").")), entry.name


@pytest.mark.parametrize(
    ("name", "values", "default"),
    [
        ("DB", "a path", "`memory.duckdb` in the platform's data folder"),
        ("OWNER", "`auto`, `off`", "`auto`"),
        ("OFFLINE", "`on`, `off`", "`off`"),
        ("MAX_REPLY_TOKENS", "tokens, 300 to 100,000", "2,000"),
        ("WARN_AT", "fraction of the window, more than 0, at most 1", "0.7"),
        ("SHARED_BLOCKS", "names, separated by commas", ""),
        ("SUMMARIZER_API_KEY", "text", ""),
    ],
)
def test_the_reference_names_the_unit_the_limits_and_the_default(name, values, default):
    (entry,) = [e for _, section in sections() for e in section if e.name == PREFIX + name]
    assert (entry.values, entry.default) == (values, default)
