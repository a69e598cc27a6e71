//! Configuration: the vendor's samples are understood, ours have nothing wrong with them, and every class of
//! mistake is told in words that a reader can act on.

use std::fs;
use std::path::{Path, PathBuf};

use hookline::app::{take_main, take_pools};
use hookline::config::{Config, Overrides, Problem};
use hookline::hook::backend::Backend;
use hookline::hook::check::{Takers, check};
use hookline::hook::plugin::Plugin;

/// The chapters of the vendor's document, by the anchors above them.
const CHAPTERS: [(&str, Backend, usize); 5] = [
    (".. _redis_backend:", Backend::Redis, 12),
    (".. _mysql_backend:", Backend::Mysql, 10),
    (".. _postgre_backend:", Backend::Pgsql, 10),
    (".. _mongodb_backend:", Backend::Mongo, 9),
    (".. _cassandra_backend:", Backend::Cassa, 11),
];

#[test]
fn the_vendors_samples_are_understood_to_the_last_line() {
    for (backend, sample, rules) in samples() {
        let (plugin, problems) = read(backend, &sample);
        assert_eq!(plugin.rules.iter().count(), rules, "{backend:?}: {problems:#?}");
        assert_eq!(told(&problems, Path::new("sample")), expected(backend), "{backend:?}");
    }
}

/// Lines are those of the document.
fn expected(backend: Backend) -> Vec<String> {
    let warnings: &[&str] = match backend {
        Backend::Redis => &["207: clientid is stored as this very word; write ${clientid} for its value"],
        Backend::Cassa => &["1388: column 63: the quote before action\": is missing; write \"action\":"],
        _ => &[],
    };
    let at = |text: &&str| format!("warning: sample:{text}");
    warnings.iter().map(at).collect()
}

#[test]
fn the_settings_that_the_vendor_left_commented_out_are_understood_too() {
    for (backend, sample, _) in samples() {
        let (_, problems) = read(backend, &sample.replace("    ## backend.", "    backend."));
        let errors: Vec<_> = problems.iter().filter(|problem| problem.is_error()).collect();
        assert!(errors.is_empty(), "{backend:?}: {errors:#?}");
    }
}

#[test]
fn our_own_files_have_nothing_wrong_with_them() {
    let etc = repository().join("etc");
    assert_eq!(told(&check_all(&etc, &[Backend::Sqlite]), &etc), [] as [&str; 0]);

    let queue =
        fs::read_to_string(repository().join("docs/one-to-one-queue.conf")).expect("the repository can be read");
    let (plugin, problems) = read(Backend::Sqlite, &queue);
    assert_eq!(problems, []);
    assert_eq!(plugin.rules.iter().count(), 9);
}

#[test]
fn what_our_own_files_show_commented_out_can_be_written() {
    for (_, backend, _) in CHAPTERS {
        let file = fs::read_to_string(backend.file(&repository().join("etc"))).expect("the repository can be read");
        let (_, problems) = read(backend, &file.replace("\n# backend.", "\nbackend."));
        assert_eq!(problems, [], "{backend:?}");
    }
}

#[test]
fn loading_a_plugin_whose_store_comes_later_says_so() {
    let etc = repository().join("etc");
    let problems = check_all(&etc, &[Backend::Sqlite, Backend::Pgsql]);
    let told = told(&problems, &etc);
    assert!(
        told.contains(
            &"warning: plugins/emqx_backend_pgsql.conf: the pgsql store is not in this version: \
              the rules of emqx_backend_pgsql are checked but cannot be loaded"
                .to_owned()
        ),
        "{told:#?}"
    );
}

#[test]
fn a_setting_of_a_plugin_can_come_from_outside() {
    let mut overrides = Overrides::default();
    overrides
        .set("backend.sqlite.pool2.file=other.db")
        .expect("a key and a value");
    overrides
        .set("backend.sqllite.pool1.file=x")
        .expect("a key and a value");
    let mut pools = Vec::new();
    let etc = repository().join("etc");
    let problems = check(
        &etc,
        &overrides,
        &[Backend::Sqlite],
        Takers {
            main: &mut take_main,
            pool: &mut |config, pool| {
                take_pools()(config, pool);
                pools.push(pool.to_string());
            },
        },
    );
    assert_eq!(pools, ["sqlite.pool1", "sqlite.pool2"]);
    assert_eq!(
        told(&problems, &etc),
        ["error: --set: backend.sqllite.pool1.file belongs to no backend we know"]
    );
}

/// `tests/config/bad/<main or backend>-<class>.conf`, and beside it what is said about it. After a change of
/// words, `HOOKLINE_TEST_BLESS=1` writes the answers anew; read the difference before you commit it.
#[test]
fn every_class_of_mistake_is_told_with_what_to_write_instead() {
    let bless = std::env::var_os("HOOKLINE_TEST_BLESS").is_some();
    let mut differences = Vec::new();
    for file in bad_files() {
        let said = said_about(&file);
        let answer = file.with_extension("txt");
        if bless {
            fs::write(&answer, &said).expect("the answers can be written");
        }
        let expected = fs::read_to_string(&answer).unwrap_or_default();
        if said.is_empty() || said != expected {
            differences.push(format!("{}\nexpected:\n{expected}said:\n{said}", file.display()));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn bad_files() -> Vec<PathBuf> {
    let folder = fs::read_dir(repository().join("tests/config/bad")).expect("the repository can be read");
    let mut files: Vec<PathBuf> = folder
        .map(|entry| entry.expect("the repository can be read").path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    assert!(files.len() > 40, "{} classes of mistakes", files.len());
    files
}

/// Puts the file where it belongs in an otherwise empty `etc/`, and checks that.
fn said_about(file: &Path) -> String {
    let etc = tempfile::tempdir().expect("a temporary folder is ours");
    fs::create_dir(etc.path().join("plugins")).expect("a temporary folder is ours");
    let main = etc.path().join("hookline.conf");
    fs::write(&main, "").expect("a temporary folder is ours");
    let name = file
        .file_stem()
        .expect("a bad file is named <owner>-<class>.conf")
        .to_string_lossy();
    let (owner, _class) = name.split_once('-').expect("a bad file is named <owner>-<class>.conf");
    let target = match owner {
        "main" => main,
        backend => Backend::named(backend)
            .expect("a bad file is named <owner>-<class>.conf")
            .file(etc.path()),
    };
    fs::copy(file, target).expect("a temporary folder is ours");
    told(&check_all(etc.path(), &[]), etc.path())
        .iter()
        .map(|line| format!("{line}\n"))
        .collect()
}

fn check_all(etc: &Path, loaded: &[Backend]) -> Vec<Problem> {
    let takers = Takers {
        main: &mut take_main,
        pool: &mut take_pools(),
    };
    check(etc, &Overrides::default(), loaded, takers)
}

/// Every key that `etc/hookline.conf` documents is one that the host takes, with the value that it shows.
#[test]
fn every_documented_key_is_taken_with_its_default() {
    let documented = fs::read_to_string(repository().join("etc/hookline.conf")).expect("the repository can be read");
    let shown: String = documented
        .lines()
        .filter(|line| !line.starts_with("##"))
        .map(|line| format!("{}\n", line.trim_start_matches("# ")))
        .collect();
    let folder = tempfile::tempdir().expect("a temporary folder is ours");
    let file = folder.path().join("hookline.conf");
    fs::write(&file, shown).expect("a temporary folder is ours");
    let mut config = Config::read(&file, &Overrides::default());
    take_main(&mut config);
    let problems = config.finish(true);
    assert!(problems.is_empty(), "{problems:#?}");
}

/// The five samples: every indented block of a chapter that sets a backend's key, on the lines on which it
/// stands in the document, and the rules that they add up to.
fn samples() -> Vec<(Backend, String, usize)> {
    let document =
        fs::read_to_string(repository().join("tests/config/seed-backends.rst")).expect("the repository can be read");
    let lines: Vec<&str> = document.lines().collect();
    let starts = CHAPTERS.map(|(anchor, ..)| {
        lines
            .iter()
            .position(|line| *line == anchor)
            .expect("every chapter is there")
    });
    let ends = starts.iter().skip(1).copied().chain([lines.len()]);
    let chapters = CHAPTERS.iter().zip(starts.iter().zip(ends));
    chapters
        .map(|(&(_, backend, rules), (&start, end))| (backend, sample(&lines, start..end), rules))
        .collect()
}

fn sample(lines: &[&str], chapter: std::ops::Range<usize>) -> String {
    let mut kept = vec![""; chapter.end];
    let mut at = chapter.start;
    while at < chapter.end {
        let belongs = |line: &&&str| line.starts_with("    ") || line.trim().is_empty();
        let block = lines[at..chapter.end].iter().take_while(belongs).count();
        let sets = lines[at..at + block]
            .iter()
            .any(|line| line.trim_start().starts_with("backend."));
        if sets {
            kept[at..at + block].copy_from_slice(&lines[at..at + block]);
        }
        at += block.max(1);
    }
    kept.join("\n")
}

fn read(backend: Backend, text: &str) -> (Plugin, Vec<Problem>) {
    let folder = tempfile::tempdir().expect("a temporary folder is ours");
    let file = folder.path().join("sample");
    fs::write(&file, text).expect("a temporary folder is ours");
    let (plugin, problems) = Plugin::read(backend, &file, &Overrides::default(), true, &mut take_pools());
    let short = problems.into_iter().map(|mut problem| {
        problem.origin.file = problem.origin.file.replace(&*file.to_string_lossy(), "sample").into();
        problem
    });
    (plugin, short.collect())
}

/// Problems as lines, files named as within `folder`.
fn told(problems: &[Problem], folder: &Path) -> Vec<String> {
    let folder = format!("{}/", folder.display());
    let line = |problem: &Problem| format!("{}: {problem}", problem.severity).replace(&folder, "");
    problems.iter().map(line).collect()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
