//! Layering, refusals, and that the reference page says what the structs say.

use std::io::Write as _;

use super::*;

fn environment(variables: &[(&str, &str)]) -> Sources {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sources { environment, ..Sources::default() }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn problems(sources: &Sources) -> Vec<(String, String)> {
    let ConfigErrors(problems) = Config::load(sources).unwrap_err();
    problems.into_iter().map(|problem| (problem.key, problem.what)).collect()
}

#[test]
fn the_defaults_are_sound() {
    assert_eq!(Config::load(&Sources::default()), Ok(Config::default()));
}

#[test]
fn what_clients_feel_has_the_contracts_defaults() {
    let contract = [
        ("e2ee.room_key_lifetime_s", 604_800),
        ("e2ee.room_key_messages", 100_000),
        ("e2ee.rotation_deadline_s", 30),
        ("e2ee.rotation_deadline_per_member_ms", 20),
        ("sessions.invitation_lifetime_s", 604_800),
        ("sessions.recall_window_s", 86_400),
        ("sessions.max_members", 100_000),
        ("connections.authenticate_within_s", 10),
        ("connections.heartbeat_s", 30),
        ("connections.stall_s", 20),
        ("limits.frame_bytes", 1_048_576),
        ("limits.text_bytes", 65_536),
        ("limits.page", 1000),
        ("limits.requests_in_flight", 64),
        ("limits.requests_per_s", 5000),
        ("limits.connections_per_user", 100),
        ("limits.connections_per_address", 20_000),
        ("limits.failed_logins_per_minute", 10),
        ("limits.registrations_per_minute", 0),
    ];
    let fields = Config::fields();
    for (key, value) in contract {
        let field = fields.iter().find(|field| field.key == key);
        assert_eq!(field.map(|field| field.value.clone()), Some(value.to_string()), "{key}");
    }
}

#[test]
fn each_layer_goes_over_the_one_before() {
    let file = file("[http]\nlisten = \"127.0.0.1:1\"\n[limits]\npage = 5\n[e2ee]\nroom_key_messages = 7\n");
    let sources = Sources {
        file: Some(file.path().to_owned()),
        environment: vec![
            ("CONCLAVE__HTTP__LISTEN".to_owned(), "127.0.0.1:2".to_owned()),
            ("CONCLAVE__LIMITS__PAGE".to_owned(), "6".to_owned()),
        ],
        flags: vec![("http.listen", "127.0.0.1:3".to_owned())],
    };
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.http.listen.port(), 3);
    assert_eq!(config.limits.page, 6);
    assert_eq!(config.e2ee.room_key_messages, 7);
    assert_eq!(config.sessions, SessionSettings::default());
}

#[test]
fn a_string_stays_a_string_whatever_it_looks_like() {
    for text in ["123", "true", "1e3", "no", "0755", "a,b"] {
        let config = Config::load(&environment(&[("CONCLAVE__STORE__DATA_DIR", text)])).unwrap();
        assert_eq!(config.store.data_dir, PathBuf::from(text));
        let file = file(&format!("[store]\ndata_dir = \"{text}\"\n"));
        let config = Config::load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() }).unwrap();
        assert_eq!(config.store.data_dir, PathBuf::from(text));
    }
    let origins = environment(&[("CONCLAVE__HTTP__ALLOWED_ORIGINS", "true, 1")]);
    assert_eq!(Config::load(&origins).unwrap().http.allowed_origins, ["true", "1"]);
}

#[test]
fn the_file_is_read_by_type_and_not_by_looks() {
    let file =
        file("[store]\ndata_dir = 123\n[limits]\npage = \"10\"\nlist = 1.5\n[http]\ntrusted_proxies = \"::1\"\n");
    let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
    let expected = [
        ("http.trusted_proxies", "expected a list (in the environment with commas between)"),
        ("store.data_dir", "expected a path, as a string"),
        ("limits.page", "expected a whole number from 0"),
        ("limits.list", "expected a whole number from 0"),
    ];
    assert_eq!(problems(&sources), expected.map(|(key, what)| (key.to_owned(), what.to_owned())));
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let file = file("colour = \"red\"\n[sessions]\nmax_member = 3\n[limits]\nlisten = \"x\"\n");
    let sources = Sources {
        file: Some(file.path().to_owned()),
        environment: vec![
            ("CONCLAVE__CONNECTIONS__HEARTBEAT_S".to_owned(), "0".to_owned()),
            ("CONCLAVE__E2EE__ROOM_KEY_LIFETIME_S".to_owned(), "a week".to_owned()),
            ("CONCLAVE__HTTP__WORKERS".to_owned(), "129".to_owned()),
            ("CONCLAVE__HTTP__TLS__CERT".to_owned(), "cert.pem".to_owned()),
            ("CONCLAVE__TELEMETRY__LOG_FORMAT".to_owned(), "xml".to_owned()),
            ("CONCLAVE_OTHER".to_owned(), "none of ours".to_owned()),
        ],
        flags: vec![("http.listen", "nowhere".to_owned())],
    };
    let expected = [
        ("http.listen", "expected an address and a port, such as \"127.0.0.1:8080\""),
        ("http.workers", "expected 0 to 128"),
        ("e2ee.room_key_lifetime_s", "expected a whole number from 0"),
        ("connections.heartbeat_s", "expected 1 to 3600"),
        ("telemetry.log_format", "expected \"pretty\" or \"json\""),
        ("colour", "there is no such setting"),
        ("limits.listen", "there is no such setting; did you mean http.listen?"),
        ("sessions.max_member", "there is no such setting; did you mean sessions.max_members?"),
        ("http.tls.key", "expected a file, since the other half of the pair is set"),
    ];
    assert_eq!(problems(&sources), expected.map(|(key, what)| (key.to_owned(), what.to_owned())));
}

#[test]
fn a_refusal_says_where_the_value_came_from() {
    let error = Config::load(&environment(&[("CONCLAVE__LIMITS__PAGE", "many")])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the configuration is wrong in 1 place\n  limits.page: expected a whole number from 0 (from CONCLAVE__LIMITS__PAGE)"
    );
}

#[test]
fn an_unknown_variable_is_refused() {
    let expected = [("limits.pages".to_owned(), "there is no such setting; did you mean limits.page?".to_owned())];
    assert_eq!(problems(&environment(&[("CONCLAVE__LIMITS__PAGES", "3")])), expected);
}

#[test]
fn a_file_that_is_not_there_or_no_toml_is_a_problem() {
    let sources = Sources { file: Some(PathBuf::from("/no/such/file.toml")), ..Sources::default() };
    assert!(problems(&sources)[0].1.starts_with("cannot be read"));
    let file = file("[http\n");
    let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
    assert!(problems(&sources)[0].1.starts_with("is no TOML"));
}

#[test]
fn what_is_in_force_can_be_loaded_again() {
    let mut variables = Vec::new();
    for field in Config::fields() {
        let text = field.value.trim_matches(['"', '[', ']']).to_owned();
        let text = if text == "none" { String::new() } else { text };
        variables.push((format!("CONCLAVE__{}", field.key.replace('.', "__").to_uppercase()), text));
    }
    let sources = Sources { environment: variables, ..Sources::default() };
    assert_eq!(Config::load(&sources), Ok(Config::default()));
}

#[test]
fn the_kind_of_store_and_its_place_fit_together() {
    let store = |variables: &[(&str, &str)]| {
        let environment: Vec<_> =
            variables.iter().map(|(name, value)| (format!("CONCLAVE__STORE__{name}"), (*value).to_owned())).collect();
        problems(&Sources { environment, ..Sources::default() })
    };
    let url = ("POSTGRES__URL", "postgres://me:pw@host/db");
    let [(key, what)] = &store(&[("KIND", "postgres")])[..] else { panic!("not one problem") };
    assert_eq!(key, "store.postgres.url");
    assert!(what.contains("\"postgres://user:password@host/conclave\""), "{what}");
    let [(key, what)] = &store(&[url])[..] else { panic!("not one problem") };
    assert_eq!((key.as_str(), what.contains("pw")), ("store.kind", false));
    let [(key, what)] = &store(&[("KIND", "postgres"), ("POSTGRES__URL", "host=x password=pw")])[..] else {
        panic!("not one problem")
    };
    assert_eq!((key.as_str(), what.contains("pw")), ("store.postgres.url", false));
    let [(key, _)] = &store(&[("KIND", "mysql")])[..] else { panic!("not one problem") };
    assert_eq!(key, "store.kind");
}

#[test]
fn a_cluster_has_a_bus_a_shared_store_and_a_secret() {
    let with = |variables: &[(&str, &str)]| {
        let of = |(name, value): &(&str, &str)| (format!("CONCLAVE__{name}"), (*value).to_owned());
        problems(&Sources { environment: variables.iter().map(of).collect(), ..Sources::default() })
    };
    let keys = |problems: &[(String, String)]| problems.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let (redis, url) = (("CLUSTER__BUS", "redis"), ("CLUSTER__REDIS__URL", "rediss://me:pw@host"));
    let postgres = [("STORE__KIND", "postgres"), ("STORE__POSTGRES__URL", "postgres://host/db")];
    let secret = ("CLUSTER__SECRET", "thirty-two bytes that nobody has");

    let problems = with(&[redis]);
    assert_eq!(keys(&problems), ["cluster.redis.url", "store.kind", "cluster.secret"]);
    assert!(problems[1].1.starts_with("expected \"postgres\", since cluster.bus is \"redis\""));
    assert!(problems[2].1.contains("set it, or cluster.secret_file, to what `openssl rand -hex 32` prints"));
    assert_eq!(keys(&with(&[redis, url, secret])), ["store.kind"]);
    assert_eq!(keys(&with(&[redis, url, postgres[0], postgres[1]])), ["cluster.secret"]);
    assert_eq!(keys(&with(&[url])), ["cluster.bus"]);
    let all = |last: (&'static str, &'static str)| with(&[redis, url, postgres[0], postgres[1], secret, last]);
    assert_eq!(keys(&all(("CLUSTER__SECRET_FILE", "secret"))), ["cluster.secret_file"]);
    assert_eq!(keys(&all(("CLUSTER__REDIS__PREFIX", "{a}"))), ["cluster.redis.prefix"]);
    assert_eq!(keys(&all(("CLUSTER__REDIS__SHARDED", "yes"))), ["cluster.redis.sharded"]);
    assert_eq!(keys(&with(&[("CLUSTER__SECRET", "too short")])), ["cluster.secret"]);
    let wrong_url = with(&[redis, ("CLUSTER__REDIS__URL", "me:pw@host"), postgres[0], postgres[1], secret]);
    assert_eq!(keys(&wrong_url), ["cluster.redis.url"]);
    assert!(!wrong_url[0].1.contains("pw"));
    let sound = [redis, url, postgres[0], postgres[1], secret, ("CLUSTER__REDIS__SHARDED", "true")];
    let config = Config::load(&environment(
        &sound
            .map(|(name, value)| (format!("CONCLAVE__{name}"), value))
            .each_ref()
            .map(|(name, value)| (name.as_str(), *value)),
    ))
    .unwrap();
    assert!(config.cluster_redis.sharded);
    assert!(!format!("{config:?}").contains("pw") && !format!("{config:?}").contains("thirty-two"));
    assert!(config.in_force().iter().all(|field| !field.value.contains("pw") && !field.value.contains("thirty")));
}

/// The table of `docs/CONFIG.md`, made from the structs.
fn reference() -> String {
    let fields = Config::fields();
    let mut page = String::new();
    for (section, doc) in Config::sections() {
        page += &format!("\n### `{section}`\n{doc}\n\n| key | default | |\n| --- | --- | --- |\n");
        for Field { key, value, doc } in &fields {
            if key.rsplit_once('.').is_some_and(|(of, _)| of == section) {
                page += &format!("| `{key}` | `{value}` | {doc} |\n");
            }
        }
    }
    page
}

#[test]
fn the_reference_page_says_what_the_structs_say() {
    let page = include_str!("../../docs/CONFIG.md");
    let (_, table) = page.split_once("## Reference\n").expect("the page has a reference");
    assert_eq!(table, reference(), "docs/CONFIG.md, from \"## Reference\" on, has to be this");
}

#[test]
fn each_limit_of_the_contract_can_be_lowered_alone() {
    for key in ["CONCLAVE__LIMITS__FRAME_BYTES", "CONCLAVE__LIMITS__TEXT_BYTES", "CONCLAVE__LIMITS__PAGE"] {
        assert_eq!(Config::load(&environment(&[(key, "512")])).err(), None, "{key}");
    }
}
