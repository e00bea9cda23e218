//! The statements of a keepalived.conf: words and blocks, with definitions put in and other files included.

use std::{
    collections::BTreeMap,
    fs,
    iter::Peekable,
    path::{Path, PathBuf},
    rc::Rc,
    str::Chars,
};

use super::super::report::{Line, Report};

/// How deep files include others: deeper is a circle.
const DEEPEST: usize = 16;

/// A statement.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: Line,
    /// At least one.
    pub(super) words: Vec<String>,
    /// What stands between its braces.
    pub(super) block: Option<Vec<Self>>,
    /// Its last line.
    pub(super) last: usize,
}

impl Node {
    /// Its first word.
    pub(super) fn keyword(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The words after the first.
    pub(super) fn values(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The first word after the keyword.
    pub(super) fn value(&self) -> &str {
        self.values().first().map_or("", String::as_str)
    }

    /// What stands between its braces, if it has any.
    pub(super) fn children(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// Reads the statements of a file.
pub(super) fn read(text: &str, file: &str, directory: &Path, report: &mut Report) -> Vec<Node> {
    let mut reader = Reader {
        definitions: BTreeMap::new(),
        report,
    };
    reader.file(text, file, directory, 0)
}

enum Token {
    Word(String),
    Open,
    Close,
}

struct Reader<'r> {
    /// `$NAME=value`
    definitions: BTreeMap<String, String>,
    report: &'r mut Report,
}

impl Reader<'_> {
    fn file(&mut self, text: &str, file: &str, directory: &Path, depth: usize) -> Vec<Node> {
        let file: Rc<str> = file.into();
        // The statements of the file and of every block that is open, and the statements that opened them.
        let mut open: Vec<(Node, Vec<Node>)> = Vec::new();
        let mut nodes: Vec<Node> = Vec::new();
        let mut begun: Option<Node> = None;
        let mut is_continued = false;
        for (index, raw) in text.lines().enumerate() {
            let number = index + 1;
            let raw = raw.trim();
            let at = Line {
                file: Rc::clone(&file),
                number,
                text: raw.into(),
            };
            if self.takes_whole(raw, &at) {
                continue;
            }
            let (text, continues) = match raw.strip_suffix('\\') {
                Some(text) => (text, true),
                None => (raw, false),
            };
            let mut is_first = !std::mem::replace(&mut is_continued, continues);
            for token in tokens(text) {
                match token {
                    Token::Word(word) => {
                        let word = self.put_in(&word);
                        if std::mem::take(&mut is_first) {
                            nodes.extend(begun.take());
                        }
                        begun
                            .get_or_insert_with(|| Node {
                                line: at.clone(),
                                words: Vec::new(),
                                block: None,
                                last: number,
                            })
                            .words
                            .push(word);
                    }
                    Token::Open => {
                        is_first = false;
                        let Some(opener) = begun.take() else {
                            let why = "braces without a keyword before them";
                            self.report.left(&at, why, "take them out");
                            continue;
                        };
                        open.push((opener, std::mem::take(&mut nodes)));
                    }
                    Token::Close => {
                        nodes.extend(begun.take());
                        is_first = true;
                        let Some((mut opener, before)) = open.pop() else {
                            let why = "a brace that closes nothing";
                            self.report.left(&at, why, "take it out");
                            continue;
                        };
                        opener.block = Some(std::mem::replace(&mut nodes, before));
                        opener.last = number;
                        nodes.push(opener);
                    }
                }
            }
            // Includes stand where their statements are to be.
            if let Some(include) = begun.take_if(|node| node.keyword().starts_with("include")) {
                nodes.extend(self.include(&include, directory, depth));
            }
        }
        nodes.extend(begun);
        while let Some((mut opener, before)) = open.pop() {
            let why = "no brace closes it: what follows belongs to it";
            self.report.left(&opener.line, why, "add the `}`");
            opener.block = Some(std::mem::replace(&mut nodes, before));
            nodes.push(opener);
        }
        nodes
    }

    /// Lines that are no statements: definitions, conditions, sequences.
    fn takes_whole(&mut self, line: &str, at: &Line) -> bool {
        let definition = line.strip_prefix('$').and_then(|rest| rest.split_once('='));
        if let Some((name, value)) = definition.filter(|(name, _)| is_name(name.trim())) {
            let value = match value.find(['#', '!']) {
                Some(comment) => value.get(..comment).unwrap_or_default(),
                None => value,
            };
            let value = self.put_in(value.trim());
            self.definitions.insert(name.trim().to_owned(), value);
            return true;
        }
        if line.starts_with('@') {
            let why = "a line that counts only with a keepalived that is started with this id (-i)";
            let help = "write a weir.toml for each node, from the file without conditions that holds there";
            self.report.left(at, why, help);
            return true;
        }
        if line.starts_with('~') {
            let why = "a sequence of definitions";
            let help = "import the configuration with the lines written out";
            self.report.left(at, why, help);
            return true;
        }
        false
    }

    /// A word with the definitions in it.
    fn put_in(&self, word: &str) -> String {
        let mut text = String::new();
        let mut rest = word;
        while let Some(at) = rest.find('$') {
            let (before, from) = rest.split_at(at);
            text.push_str(before);
            let after = from.get(1..).unwrap_or_default();
            let (name, end) = match after.strip_prefix('{').and_then(|a| a.split_once('}')) {
                Some((name, end)) => (name, end),
                None => after.split_at(after.find(|c| !is_of_name(c)).unwrap_or(after.len())),
            };
            if let Some(value) = self.definitions.get(name) {
                text.push_str(value);
                rest = end;
            } else {
                text.push('$');
                rest = after;
            }
        }
        text.push_str(rest);
        text
    }

    fn include(&mut self, node: &Node, directory: &Path, depth: usize) -> Vec<Node> {
        let at = &node.line;
        let pattern = directory.join(node.value());
        let paths: Vec<PathBuf> = match glob::glob(&pattern.to_string_lossy()) {
            Ok(paths) if depth < DEEPEST => paths.flatten().filter(|path| path.is_file()).collect(),
            _ => Vec::new(),
        };
        let mut nodes = Vec::new();
        if paths.is_empty() {
            let why = "no file is found there";
            let help = "import where keepalived runs, or with the included files beside this one";
            self.report.left(at, why, help);
        }
        for path in paths {
            match fs::read_to_string(&path) {
                Ok(text) => {
                    let directory = path.parent().unwrap_or(Path::new(""));
                    let file = path.display().to_string();
                    nodes.extend(self.file(&text, &file, directory, depth + 1));
                }
                Err(error) => {
                    let why = format!("{} cannot be read: {error}", path.display());
                    self.report
                        .left(at, why, "import as a user who may read it");
                }
            }
        }
        nodes
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_of_name)
}

/// The words and braces of a line, up to its comment.
fn tokens(line: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(&c) = chars.peek() {
        match c {
            '#' | '!' => break,
            '{' => {
                chars.next();
                tokens.push(Token::Open);
            }
            '}' => {
                chars.next();
                tokens.push(Token::Close);
            }
            c if c.is_whitespace() => {
                chars.next();
            }
            _ => tokens.push(Token::Word(word(&mut chars))),
        }
    }
    tokens
}

/// One word: quotes hold it together, and go; `${NAME}` keeps its braces.
fn word(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut word = String::new();
    let mut quote: Option<char> = None;
    while let Some(&c) = chars.peek() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (Some(_), '\\') => {
                chars.next();
                word.extend(chars.peek());
            }
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') if word.ends_with('$') => {
                for c in chars.by_ref() {
                    word.push(c);
                    if c == '}' {
                        break;
                    }
                }
                continue;
            }
            (None, '{' | '}' | '#' | '!') => break,
            (None, c) if c.is_whitespace() => break,
            (_, c) => word.push(c),
        }
        chars.next();
    }
    word
}
