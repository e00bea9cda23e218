use super::*;
use crate::config::Config;
use std::fs;

fn read_text(rest: &str, directory: &Path) -> Result<Config, String> {
    let text = format!("[node]\ninterfaces = [\"eth0\"]\nseed = \"x\"\n{rest}");
    let file = directory.join("weir.toml");
    Config::parse(&text, &file.display().to_string()).map_err(|errors| errors.to_string())
}

fn shown(lists: &Lists) -> Vec<String> {
    let word = |entry: &Entry| if entry.is_denied { "deny" } else { "allow" };
    let entries = lists.entries.iter();
    entries
        .map(|entry| format!("{} {}", word(entry), entry.prefix))
        .collect()
}

#[test]
fn lists_and_files_become_one_and_denial_wins() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("feed.txt");
    fs::write(
        &path,
        "# a feed\n\n10.0.0.0/8  # all of it\n2001:db8::/32\n192.0.2.0/24\n",
    )
    .unwrap();
    let config = read_text(
        "[access]\nallow = [\"192.0.2.0/24\", \"192.0.2.9\"]\ndeny_file = \"feed.txt\"\n",
        directory.path(),
    )
    .unwrap();
    let wanted = [
        "deny 10.0.0.0/8",
        "deny 192.0.2.0/24",
        "allow 192.0.2.9/32",
        "deny 2001:db8::/32",
    ];
    assert_eq!(shown(&config.access), wanted);
    assert_eq!(config.access.files().count(), 1);

    fs::write(&path, "10.0.0.0/9\n").unwrap();
    let new = Arc::new(list_file::read(&path).unwrap());
    let lists = config.access.with_files(&[new]).unwrap();
    assert_eq!(
        shown(&lists),
        [
            "deny 10.0.0.0/9",
            "allow 192.0.2.0/24",
            "allow 192.0.2.9/32"
        ]
    );
}

#[test]
fn every_bad_line_of_a_file_is_named_and_an_allow_file_names_somebody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("allow.txt");
    fs::write(&path, "10.0.0.0/8\n10.0.0.1/8\nnobody\n").unwrap();
    let said = read_text("[access]\nallow_file = \"allow.txt\"\n", directory.path()).unwrap_err();
    let shown = path.display();
    assert!(
        said.contains(&format!("{shown}:2:1: prefix: found \"10.0.0.1/8\"")),
        "{said}"
    );
    assert!(said.contains("write `10.0.0.0/8`"), "{said}");
    assert!(
        said.contains(&format!("{shown}:3:1: prefix: found \"nobody\"")),
        "{said}"
    );

    fs::write(&path, "# nobody\n").unwrap();
    let said = read_text("[access]\nallow_file = \"allow.txt\"\n", directory.path()).unwrap_err();
    assert!(said.contains("found no prefix at all"), "{said}");
    let denied = read_text("[access]\ndeny_file = \"allow.txt\"\n", directory.path()).unwrap();
    assert!(denied.access.is_given() && denied.access.entries.is_empty());

    fs::write(&path, "10.0.0.0/8\n").unwrap();
    let config = read_text("[access]\nallow_file = \"allow.txt\"\n", directory.path()).unwrap();
    fs::write(&path, "").unwrap();
    let empty = Arc::new(list_file::read(&path).unwrap());
    let said = config.access.with_files(&[empty]).unwrap_err().to_string();
    assert!(said.contains("found no prefix at all"), "{said}");
}
