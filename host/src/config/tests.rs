//! What a file, its includes and its overrides come to.

use std::path::PathBuf;
use std::time::Duration;

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str, overrides: &Overrides) -> Config {
        Config::read(&self.path(name), overrides)
    }

    /// Problems without the folder's name.
    fn told(&self, config: Config) -> Vec<String> {
        let folder = format!("{}/", self.0.path().display());
        let problems = config.finish(true);
        problems
            .iter()
            .map(|problem| problem.to_string().replace(&folder, ""))
            .collect()
    }
}

fn variables(all: &[(&str, &str)]) -> Overrides {
    Overrides::from_variables(all.iter().map(|(name, value)| (name.into(), value.into())))
}

#[test]
fn settings_are_taken_by_name_and_type() {
    let folder = Folder::with(&[("a.conf", b"a.wait = 1m\r\na.size = 1MB\r\n# a.size = 2MB\r\na.on = on")]);
    let mut config = folder.read("a.conf", &Overrides::default());
    assert_eq!(config.get("a.wait"), Some(Duration::from_secs(60)));
    assert_eq!(config.or("a.size", ByteSize(1)), ByteSize(1 << 20));
    assert_eq!(config.get("a.on"), Some(true));
    assert_eq!(config.or("a.none", 7_u16), 7);
    assert_eq!(config.origin("a.on").map(|origin| origin.line), Some(4));
    assert_eq!(folder.told(config), [] as [&str; 0]);
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_the_rest_is_read() {
    let folder = Folder::with(&[(
        "a.conf",
        b"pool.size = many\npool.size\n\xff = 1\nempty =\npool.name = x\npool.name = y\npool.siez = 1\nsecret = file:/no/such\n",
    )]);
    let mut config = folder.read("a.conf", &Overrides::default());
    assert_eq!(config.get::<u32>("pool.size"), None);
    assert_eq!(config.get::<String>("pool.name").as_deref(), Some("y"));
    assert_eq!(config.get::<Secret>("secret"), None);
    assert_eq!(
        folder.told(config),
        [
            "a.conf:1: pool.size = many: expected a whole number from 0 to 4294967295",
            "a.conf:2: a line is `key = value`, a comment that starts with #, or `include <file>`; there is no = here",
            "a.conf:3: is not UTF-8; save the file in that encoding",
            "a.conf:4: empty has no value and counts as not set; delete the line or write one",
            "a.conf:6: pool.name is set twice; this line wins over a.conf:5",
            "a.conf:7: pool.siez is not a setting; did you mean pool.size or pool.name?",
            "a.conf:8: secret = …: expected the secret itself, file:<path> of a file that can be read, \
             or env:<VARIABLE> of a variable that is set",
        ]
    );
}

#[test]
fn a_missing_file_is_a_problem_and_no_panic() {
    let folder = Folder::with(&[]);
    let config = folder.read("none.conf", &Overrides::default());
    let told = folder.told(config);
    assert!(
        told[0].starts_with("none.conf: is not there: make it, or name its folder with --etc"),
        "{told:?}"
    );
}

#[test]
fn unknown_keys_are_forgiven_where_the_operator_says_so() {
    let folder = Folder::with(&[("a.conf", b"nobody.asks = 1")]);
    for (strict, severity) in [(true, Severity::Error), (false, Severity::Warning)] {
        let problems = folder.read("a.conf", &Overrides::default()).finish(strict);
        assert_eq!(problems[0].severity, severity);
    }
}

#[test]
fn a_backends_key_in_the_main_file_is_sent_home() {
    let folder = Folder::with(&[("a.conf", b"backend.sqlite.pool1.file = x")]);
    let config = folder.read("a.conf", &Overrides::default());
    assert_eq!(
        folder.told(config),
        ["a.conf:1: backend.sqlite.pool1.file belongs in plugins/emqx_backend_sqlite.conf"]
    );
}

#[test]
fn includes_are_relative_to_their_file_and_end() {
    let folder = Folder::with(&[
        ("a.conf", b"x = 1\ninclude b.conf\ninclude gone.conf\ninclude loop.conf"),
        ("b.conf", b"x = 2"),
        ("loop.conf", b"include loop.conf"),
    ]);
    let mut config = folder.read("a.conf", &Overrides::default());
    assert_eq!(config.get("x"), Some(2_u32));
    let told = folder.told(config);
    assert!(
        told[0].starts_with("a.conf:3: include gone.conf: No such file"),
        "{told:?}"
    );
    assert_eq!(told[1], "b.conf:1: x is set twice; this line wins over a.conf:1");
    assert!(
        told[2].starts_with("loop.conf:1: include loop.conf: more than 8 files deep"),
        "{told:?}"
    );
    assert_eq!(told.len(), 3);
}

#[test]
fn the_environment_beats_the_file_and_set_beats_both() {
    let folder = Folder::with(&[("a.conf", b"a = 1\nb = 1\nc = 1\nd.e = 1")]);
    let mut overrides = variables(&[
        ("HOOKLINE_B", "2"),
        ("HOOKLINE_C", "2"),
        ("EMQX_C", "9"),
        ("HOOKLINE_D__E", ""),
        ("HOOKLINE_BACKEND__SQLITE__POOL1__FILE", "x"),
        ("HOOKLINE_ETC", "/etc"),
        ("PATH", "/bin"),
    ]);
    overrides.set("c=3").unwrap();
    let mut config = folder.read("a.conf", &overrides);
    let values = ["a", "b", "c", "d.e"].map(|key| config.get::<u32>(key));
    assert_eq!(values, [Some(1), Some(2), Some(3), None]);
    assert_eq!(config.origin("b").unwrap().to_string(), "HOOKLINE_B");
    assert_eq!(config.origin("c").unwrap().to_string(), "--set");
    assert_eq!(folder.told(config), [] as [&str; 0]);
}

#[test]
fn an_override_reaches_the_file_that_its_key_belongs_to() {
    let folder = Folder::with(&[("sqlite.conf", b"backend.sqlite.pool1.file = a.db")]);
    let overrides = variables(&[
        ("HOOKLINE_BACKEND__SQLITE__POOL1__FILE", "b.db"),
        ("HOOKLINE_BACKEND__SQLITER__POOL1__FILE", "c.db"),
        ("HOOKLINE_NODE__NAME", "n"),
    ]);
    let sections = ["backend.sqlite"];
    let mut config = Config::read_sections(&folder.path("sqlite.conf"), &overrides, &sections);
    assert_eq!(config.below("backend.sqlite"), ["pool1"]);
    assert_eq!(
        config.get::<String>("backend.sqlite.pool1.file").as_deref(),
        Some("b.db")
    );
    assert_eq!(folder.told(config), [] as [&str; 0]);
    let astray = overrides.astray(&sections);
    assert_eq!(
        astray[0].to_string(),
        "HOOKLINE_BACKEND__SQLITER__POOL1__FILE: backend.sqliter.pool1.file belongs to no backend we know"
    );
    assert_eq!(astray.len(), 1);
}

#[test]
fn strangers_with_the_alias_prefix_are_only_warned_about() {
    let folder = Folder::with(&[("a.conf", b"")]);
    let config = folder.read("a.conf", &variables(&[("EMQX_HOST", "h"), ("HOOKLINE_HOST", "h")]));
    let problems = config.finish(true);
    assert!(
        problems[0].is_error() && problems.len() == 1,
        "our own prefix wins: {problems:?}"
    );
    let config = folder.read("a.conf", &variables(&[("EMQX_HOST", "h")]));
    assert!(!config.finish(true)[0].is_error());
}

#[test]
fn set_wants_a_key_and_a_value() {
    let mut overrides = Overrides::default();
    for bad in ["a", "=b", "a b=c"] {
        assert!(overrides.set(bad).is_err(), "{bad}");
    }
    assert!(overrides.set("a.b={\"topic\": \"#\"}").is_ok());
}

proptest::proptest! {
    #[test]
    fn random_bytes_are_no_panic(bytes: Vec<u8>) {
        let folder = Folder::with(&[("a.conf", &bytes)]);
        let mut config = folder.read("a.conf", &Overrides::default());
        for key in config.below("a") {
            config.text(&key);
        }
        config.finish(true);
    }

    #[test]
    fn random_lines_are_no_panic(text in "[ \t\\\\=.#{}ab\u{e9}\n\r]{0,80}") {
        let folder = Folder::with(&[("a.conf", text.as_bytes())]);
        let mut config = folder.read("a.conf", &Overrides::default());
        config.below("a");
        config.get::<Duration>("a.b");
        config.finish(true);
    }
}
