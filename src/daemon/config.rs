//! Configuration files: TOML in, plain settings with file and line out.
//!
//! Called at start and on SIGHUP. Knows how values are written, not what they mean: that is
//! decided in `settings`. Invariant: every error names file and line, and all of a file's errors
//! are reported together.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::settings::{Given, Origin, SettingsError, TABLE, find_row};
use super::unit::Written;

/// A larger file is not one of ours.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Reads the settings that a file gives.
pub fn read(path: &Path) -> Result<Vec<Given>, SettingsError> {
    let refuse = |reason: String| {
        SettingsError(vec![format!("cannot read the configuration {}: {reason}", path.display())])
    };
    let length = fs::metadata(path).map_err(|error| refuse(error.to_string()))?.len();
    if length > CONFIG_BYTES_MAX {
        return Err(refuse(format!("it has {length} bytes, more than {CONFIG_BYTES_MAX}")));
    }
    let text = fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    parse(&text, path)
}

/// Parses the text of a configuration file; `path` is for messages.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Given>, SettingsError> {
    let mut file = File { text, path: path.into(), given: Vec::new(), wrong: Vec::new() };
    match DeTable::parse(text) {
        Ok(document) => file.read_document(document.get_ref()),
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            file.refuse(&span, &format!("this is not TOML: {}", error.message().trim()));
        }
    }
    if file.wrong.is_empty() {
        return Ok(file.given);
    }
    // The table is in the order of the alphabet, but the file is read from the top.
    file.wrong.sort();
    Err(SettingsError(file.wrong.into_iter().map(|(_, reason)| reason).collect()))
}

struct File<'a> {
    text: &'a str,
    path: Arc<Path>,
    given: Vec<Given>,
    wrong: Vec<(usize, String)>,
}

impl File<'_> {
    fn read_document(&mut self, document: &DeTable<'_>) {
        for (name, value) in document {
            let section = name.get_ref();
            match value.get_ref() {
                DeValue::Table(table) if is_section(section) => self.read_section(section, table),
                _ if is_section(section) => {
                    let hint = format!("{section} is a section: write [{section}] above its keys");
                    self.refuse(&name.span(), &hint);
                }
                _ => self.refuse_unknown(&name.span(), section),
            }
        }
    }

    fn read_section(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = format!("{section}.{}", name.get_ref());
            match find_row(&key) {
                None => self.refuse_unknown(&name.span(), &key),
                Some(row) => {
                    let (written, text) = plain(value);
                    if row.unit.accepts(written) {
                        let line = self.line(&value.span());
                        let origin = Origin::File { path: Arc::clone(&self.path), line };
                        self.given.push(Given { row, text, origin });
                    } else {
                        let expected = row.unit.expected();
                        let what = describe(written);
                        self.refuse(
                            &value.span(),
                            &format!("{key} is {what}; it needs {expected}"),
                        );
                    }
                }
            }
        }
    }

    fn refuse_unknown(&mut self, span: &Range<usize>, key: &str) {
        let hint = match nearest(key) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "`annulus --print-config` prints all there are".to_owned(),
        };
        self.refuse(span, &format!("there is no setting {key}; {hint}"));
    }

    fn refuse(&mut self, span: &Range<usize>, reason: &str) {
        let line = self.line(span);
        self.wrong.push((line, format!("{}:{line}: {reason}", self.path.display())));
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        before.bytes().filter(|byte| *byte == b'\n').count() + 1
    }
}

fn is_section(name: &str) -> bool {
    TABLE.iter().any(|row| row.key.split_once('.').is_some_and(|(section, _)| section == name))
}

/// A value as text, whatever its type: whether the type is right is for the setting to say.
fn plain(value: &Spanned<DeValue<'_>>) -> (Written, String) {
    match value.get_ref() {
        DeValue::String(text) => (Written::Quoted, text.to_string()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => (Written::Integer, number.to_string()),
            Err(_) => (Written::Other("too large a number"), String::new()),
        },
        DeValue::Boolean(_) => (Written::Other("true or false"), String::new()),
        DeValue::Float(_) => (Written::Other("a number with a fraction"), String::new()),
        DeValue::Datetime(_) => (Written::Other("a date or time"), String::new()),
        DeValue::Array(_) => (Written::Other("a list"), String::new()),
        DeValue::Table(_) => (Written::Other("a table"), String::new()),
    }
}

fn describe(written: Written) -> &'static str {
    match written {
        Written::Quoted => "text",
        Written::Integer => "a bare number",
        Written::Other(kind) => kind,
    }
}

/// The setting that a misspelt key may have meant: the same name in another section, or one that
/// differs in at most two characters.
fn nearest(key: &str) -> Option<&'static str> {
    let last = |key: &str| key.rsplit('.').next().map(str::to_owned);
    let elsewhere = TABLE.iter().find(|row| last(row.key) == last(key));
    let misspelt = || {
        let distances = TABLE.iter().map(|row| (edits(row.key, key), row));
        distances.filter(|(edits, _)| *edits <= 2).min_by_key(|(edits, _)| *edits)
    };
    elsewhere.or_else(|| misspelt().map(|(_, row)| row)).map(|row| row.key)
}

/// The Levenshtein distance, by rows.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, left) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, right) in right.iter().enumerate() {
            let replaced = above[column] + usize::from(left != *right);
            current.push(replaced.min(above[column + 1] + 1).min(current[column] + 1));
        }
        above = current;
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::super::settings::resolve;
    use super::*;

    const DEFAULT: &str = include_str!("../../config/default.toml");
    const PRODUCTION: &str = include_str!("../../config/production.toml");

    fn refusals(text: &str) -> Vec<String> {
        let parsed = parse(text, Path::new("annulus.toml"));
        parsed.and_then(|given| resolve(given).map(drop)).expect_err(text).0
    }

    #[test]
    fn the_default_file_is_the_defaults_and_names_every_key() {
        let given = parse(DEFAULT, Path::new("default.toml")).expect("valid");
        for row in TABLE {
            let have = given.iter().find(|given| given.row.key == row.key);
            assert_eq!(have.map(|given| given.text.as_str()), Some(row.default), "{}", row.key);
        }
        let resolved = resolve(given).expect("valid");
        assert_eq!(resolved.settings, resolve(Vec::new()).expect("valid").settings);
    }

    #[test]
    fn the_default_file_explains_every_key_with_the_words_of_the_table() {
        for row in TABLE {
            assert!(DEFAULT.contains(row.help), "default.toml lacks the help of {}", row.key);
        }
    }

    #[test]
    fn the_production_file_is_valid() {
        let given = parse(PRODUCTION, Path::new("production.toml")).expect("valid");
        resolve(given).expect("valid");
    }

    #[test]
    fn what_is_printed_is_a_configuration_of_the_same_settings() {
        let text = "[runtime]\nshards = 2\n[resp]\nlisten = \"off\"\n[http]\nroot = 'a\"b'\n";
        let before = resolve(parse(text, Path::new("a.toml")).expect("valid")).expect("valid");
        let printed = before.to_toml();
        assert!(printed.contains("shards = 2 # a.toml:2\n"), "{printed}");
        assert!(printed.contains("cpu_cores = \"auto\" # default\n"), "{printed}");
        let again = parse(&printed, Path::new("b.toml")).expect(&printed);
        assert_eq!(resolve(again).expect("valid").settings, before.settings);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_likely_one() {
        assert_eq!(
            refusals("[runtime]\n\nshard = 2\n"),
            ["annulus.toml:3: there is no setting runtime.shard; did you mean runtime.shards?"]
        );
        assert_eq!(
            refusals("[http]\ndrain_timeout = \"1s\"\n"),
            ["annulus.toml:2: there is no setting http.drain_timeout; did you mean \
              shutdown.drain_timeout?"]
        );
        assert_eq!(
            refusals("[banana]\nsplit = 1\n"),
            ["annulus.toml:1: there is no setting banana; `annulus --print-config` prints all \
              there are"]
        );
    }

    #[test]
    fn a_wrong_type_is_named_with_what_is_needed() {
        assert_eq!(
            refusals("[http]\nidle_timeout = 30\n"),
            ["annulus.toml:2: http.idle_timeout is a bare number; it needs a duration with its \
              unit in quotes, such as \"30s\" or \"250ms\""]
        );
        assert_eq!(
            refusals("[runtime]\nring_entries = \"256\"\nshards = true\n"),
            [
                "annulus.toml:2: runtime.ring_entries is text; it needs a whole number without \
                 quotes",
                "annulus.toml:3: runtime.shards is true or false; it needs a whole number, or \
                 \"auto\""
            ]
        );
    }

    #[test]
    fn a_wrong_value_is_named_with_where_it_was_written() {
        assert_eq!(
            refusals("[http]\nidle_timeout = \"30\"\nlisten = \"8080\"\n"),
            [
                "annulus.toml:3: http.listen = \"8080\" is not an IP address and port; write for \
                 example 127.0.0.1:6380, or off",
                "annulus.toml:2: http.idle_timeout = \"30\" is not a duration; write a number and \
                 ms, s, m or h, such as 30s",
            ]
        );
    }

    #[test]
    fn a_section_is_no_value_and_broken_toml_has_a_line() {
        assert_eq!(
            refusals("http = 1\n"),
            ["annulus.toml:1: http is a section: write [http] above its keys"]
        );
        let broken = refusals("[http]\nlisten = \n");
        assert!(broken[0].starts_with("annulus.toml:2: this is not TOML: "), "{broken:?}");
    }
}
