//! The layers of the configuration: what was set, by its key, with where it came from.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;

use config::{Environment, File, FileFormat, Map, Source, Value, ValueKind};

use super::{Problem, Setting, Sources};

const PREFIX: &str = "CONCLAVE";
const SEPARATOR: &str = "__";

/// One value as it was set.
#[derive(Debug)]
enum Given {
    /// In an environment variable or a flag: always text.
    Text(String),
    /// In the file: typed.
    File(ValueKind),
}

#[derive(Debug)]
struct Entry {
    given: Given,
    origin: String,
}

/// All that was set, the last layer's word for each key.
#[derive(Debug, Default)]
pub(super) struct Layers(BTreeMap<String, Vec<Entry>>);

impl Layers {
    /// Gathers all layers; a file that cannot be read is a problem among others.
    pub(super) fn collect(sources: &Sources, problems: &mut Vec<Problem>) -> Self {
        let mut layers = Self::default();
        if let Some(path) = &sources.file {
            match read_file(path) {
                Ok(values) => layers.add_table("", values, &path.display().to_string()),
                Err(what) => problems.push(Problem { key: path.display().to_string(), what, origin: None }),
            }
        }
        layers.add_environment(&sources.environment, problems);
        for (key, value) in &sources.flags {
            layers.add((*key).to_owned(), Given::Text(value.clone()), "the command line".to_owned());
        }
        layers
    }

    /// Takes the value of `key`, or `default` where none was set or a wrong one, which is a problem.
    pub(super) fn take<T: Setting>(&mut self, key: &str, default: T, problems: &mut Vec<Problem>) -> T {
        let mut value = default;
        // Every layer is checked, the overridden ones too: the mistake would surface the day the override goes.
        for Entry { given, origin } in self.0.remove(key).unwrap_or_default() {
            let read = match &given {
                Given::Text(text) => T::from_text(text),
                Given::File(kind) => T::from_file(kind),
            };
            match read {
                Some(read) => value = read,
                None => problems.push(Problem {
                    key: key.to_owned(),
                    what: format!("expected {}", T::EXPECTED),
                    origin: Some(origin),
                }),
            }
        }
        value
    }

    /// Whatever was set and not taken is no setting of ours.
    pub(super) fn refuse_the_rest(self, known: &[super::Field], problems: &mut Vec<Problem>) {
        for (key, entries) in self.0 {
            let what = match closest(&key, known) {
                Some(near) => format!("there is no such setting; did you mean {near}?"),
                None => "there is no such setting".to_owned(),
            };
            for Entry { origin, .. } in entries {
                problems.push(Problem { key: key.clone(), what: what.clone(), origin: Some(origin) });
            }
        }
    }

    fn add(&mut self, key: String, given: Given, origin: String) {
        self.0.entry(key).or_default().push(Entry { given, origin });
    }

    fn add_table(&mut self, above: &str, values: Map<String, Value>, origin: &str) {
        for (name, value) in values {
            let key = if above.is_empty() { name } else { format!("{above}.{name}") };
            match value.kind {
                ValueKind::Table(values) => self.add_table(&key, values, origin),
                kind => self.add(key, Given::File(kind), origin.to_owned()),
            }
        }
    }

    fn add_environment(&mut self, environment: &[(String, String)], problems: &mut Vec<Problem>) {
        let variables = Environment::with_prefix(PREFIX)
            .prefix_separator(SEPARATOR)
            .separator(SEPARATOR)
            .source(Some(environment.iter().cloned().collect()))
            .collect();
        match variables {
            Ok(values) => {
                for (key, value) in values {
                    let origin = format!("{PREFIX}{SEPARATOR}{}", key.replace('.', SEPARATOR).to_uppercase());
                    // Nothing is guessed from the text (`try_parsing` stays off): each field reads it as its type.
                    let text = value.into_string().unwrap_or_default();
                    self.add(key, Given::Text(text), origin);
                }
            }
            Err(error) => {
                problems.push(Problem { key: "the environment".to_owned(), what: error.to_string(), origin: None })
            }
        }
    }
}

fn read_file(path: &Path) -> Result<Map<String, Value>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    File::from_str(&text, FileFormat::Toml).collect().map_err(|error| format!("is no TOML: {error}"))
}

/// The known key of the same name in another section, or in the same section with the most letters in common at the
/// start: enough for a wrong section, a plural, a forgotten unit.
fn closest<'a>(key: &str, known: &'a [super::Field]) -> Option<&'a str> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let shared = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    known.iter().map(|field| field.key.as_str()).find(|near| last(near) == last(key)).or_else(|| {
        let section = key.find('.').map_or(0, |dot| dot + 4);
        known
            .iter()
            .map(|field| field.key.as_str())
            .max_by_key(|near| shared(near, key))
            .filter(|near| section > 0 && shared(near, key) >= section)
    })
}

/// Whether a number is in its range; if not, that is a problem and the default stands in.
pub(super) fn within<T: PartialOrd + Display + Copy>(
    key: &str,
    value: T,
    range: &RangeInclusive<T>,
    problems: &mut Vec<Problem>,
) {
    if !range.contains(&value) {
        let what = format!("expected {} to {}", range.start(), range.end());
        problems.push(Problem { key: key.to_owned(), what, origin: None });
    }
}
