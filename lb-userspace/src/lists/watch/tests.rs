use super::*;
use std::{fs, path::Path};

fn config(directory: &Path, rest: &str) -> Config {
    let text = format!("[node]\ninterfaces = [\"eth0\"]\nseed = \"x\"\n{rest}");
    Config::parse(&text, &directory.join("weir.toml").display().to_string()).unwrap()
}

fn see(path: &Path) -> Seen {
    Stamp::of(path).map_err(|error| error.to_string())
}

#[test]
fn a_file_is_read_once_it_has_been_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("feed");
    fs::write(&path, "10.0.0.0/8\n").unwrap();
    let lists = with_files(&config(
        directory.path(),
        "[access]\ndeny_file = \"feed\"\n",
    ));
    let mut looks = Looks::default();
    assert!(looks.look(&lists, &see).is_none());
    fs::write(&path, "10.0.0.0/8\n11.0.0.0/8\n").unwrap();
    // It may be half written.
    assert!(looks.look(&lists, &see).is_none());
    fs::write(&path, "10.0.0.0/8\n11.0.0.0/8\n12.0.0.0/8\n").unwrap();
    assert!(looks.look(&lists, &see).is_none());
    let reread = looks.look(&lists, &see).unwrap();
    assert_eq!(reread.after[&None].entries.len(), 3);
    assert!(reread.refused.is_empty());
    assert!(looks.look(&reread.after, &see).is_none());
}

#[test]
fn what_cannot_be_used_is_told_once_and_taken_when_it_is_mended() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("feed");
    fs::write(&path, "10.0.0.0/8\n").unwrap();
    let lists = with_files(&config(
        directory.path(),
        "[access]\nallow_file = \"feed\"\n",
    ));
    let mut looks = Looks::default();
    let mut settle = |lists: &WithFiles| {
        assert!(looks.look(lists, &see).is_none());
        let found = looks.look(lists, &see);
        assert!(
            looks
                .look(
                    found.as_ref().map_or(lists, |found| {
                        if found.after.is_empty() {
                            lists
                        } else {
                            &found.after
                        }
                    }),
                    &see
                )
                .is_none()
        );
        found
    };
    fs::write(&path, "10.0.0.0/8\nnobody\n").unwrap();
    let reread = settle(&lists).unwrap();
    assert!(reread.after.is_empty());
    assert_eq!(reread.refused[0].1.findings()[0].line, 2);

    fs::remove_file(&path).unwrap();
    let reread = settle(&lists).unwrap();
    assert!(matches!(reread.refused[0].1, Errors::Read { .. }));

    // An allow list that names nobody would deny all.
    fs::write(&path, "# soon\n").unwrap();
    let reread = settle(&lists).unwrap();
    assert!(reread.after.is_empty());
    assert!(reread.refused[0].1.to_string().contains("no prefix at all"));

    fs::write(&path, "11.0.0.0/8\n").unwrap();
    let reread = settle(&lists).unwrap();
    assert!(reread.refused.is_empty());
    assert_eq!(
        reread.after[&None].entries[0].prefix.to_string(),
        "11.0.0.0/8"
    );
}
