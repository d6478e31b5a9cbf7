//! What the user sees: lines, coloured on a terminal, printed above the line being typed.
//!
//! Invariant: nothing that came from the network reaches the terminal without [`clean`].

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use rustyline::ExternalPrinter;

use crate::input::Input;

/// Colours that are readable on dark and on light backgrounds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style {
    /// What people say.
    Plain,
    /// Times, ids, hints.
    Faint,
    /// Somebody's name.
    Name,
    /// What happened.
    Notice,
    /// What went right and matters.
    Good,
    /// What the user has to know.
    Alarm,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Faint => "\x1b[2m",
            Self::Name => "\x1b[1;36m",
            Self::Notice => "\x1b[34m",
            Self::Good => "\x1b[32m",
            Self::Alarm => "\x1b[1;31m",
        }
    }
}

type Printer = Box<dyn FnMut(String) + Send>;

/// Where lines go. Clones share it.
#[derive(Clone)]
pub(crate) struct Screen {
    printer: Arc<Mutex<Printer>>,
    colour: bool,
    interactive: bool,
}

impl Screen {
    /// The terminal if there is one at both ends, else the pipes.
    pub(crate) fn open(no_colour: bool) -> anyhow::Result<(Self, Input)> {
        let interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
        let colour = io::stdout().is_terminal() && !no_colour && std::env::var_os("NO_COLOR").is_none();
        let (printer, input): (Printer, Input) = if interactive {
            let mut editor = rustyline::DefaultEditor::new()?;
            let mut above = editor.create_external_printer()?;
            (Box::new(move |line| drop(above.print(line))), Input::terminal(editor))
        } else {
            let print = |line: String| {
                let mut out = io::stdout().lock();
                // Whoever reads may be gone; the end of the input ends the program then.
                let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
            };
            (Box::new(print), Input::pipe())
        };
        Ok((Self { printer: Arc::new(Mutex::new(printer)), colour, interactive }, input))
    }

    /// Whether a person can be asked.
    pub(crate) const fn interactive(&self) -> bool {
        self.interactive
    }

    /// Prints a line made of pieces.
    pub(crate) fn line(&self, pieces: &[(Style, &str)]) {
        let mut line = String::new();
        for (style, text) in pieces {
            match style.code() {
                code if self.colour && !code.is_empty() => {
                    line.push_str(code);
                    line.push_str(text);
                    line.push_str("\x1b[0m");
                }
                _ => line.push_str(text),
            }
        }
        line.push('\n');
        let mut printer = self.printer.lock().unwrap_or_else(PoisonError::into_inner);
        (*printer)(line);
    }

    /// What happened.
    pub(crate) fn notice(&self, text: &str) {
        self.line(&[(Style::Notice, "* "), (Style::Notice, text)]);
    }

    /// What went right and matters.
    pub(crate) fn good(&self, text: &str) {
        self.line(&[(Style::Good, "* "), (Style::Good, text)]);
    }

    /// What the user has to know.
    pub(crate) fn alarm(&self, text: &str) {
        self.line(&[(Style::Alarm, "! "), (Style::Alarm, text)]);
    }

    /// A hint.
    pub(crate) fn hint(&self, text: &str) {
        self.line(&[(Style::Faint, "  "), (Style::Faint, text)]);
    }
}

/// Takes out what could move the cursor, change the terminal, or turn the reading direction around.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .filter(|c| !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}'))
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn nothing_from_the_network_controls_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\u{9b}c\td\u{202e}e\r\nf"), "a [2Jb c de \nf");
        assert_eq!(clean("Grüße 🔒"), "Grüße 🔒");
    }
}
