//! Lines that the user types, or that a pipe brings, on a thread of their own.

use std::io::BufRead;
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::sync::mpsc;

/// How long the next prompt waits for the last line to be dealt with: most are in that time, and the prompt is right.
const PROMPT_WAITS: Duration = Duration::from_millis(400);

/// A line, and where to say that it was dealt with.
pub(crate) struct Line {
    /// As it was typed.
    pub(crate) text: String,
    /// Dropped when done.
    pub(crate) _done: blocking::SyncSender<()>,
}

/// Where lines come from, before it is read.
pub(crate) struct Input(Source);

enum Source {
    Terminal(Box<DefaultEditor>),
    Pipe,
}

/// The prompt, which the chat changes.
pub(crate) type Prompt = Arc<Mutex<String>>;

impl Input {
    pub(crate) fn terminal(editor: DefaultEditor) -> Self {
        Self(Source::Terminal(Box::new(editor)))
    }

    pub(crate) const fn pipe() -> Self {
        Self(Source::Pipe)
    }

    /// Starts reading. The channel closes at the end of the input.
    pub(crate) fn start(self, prompt: Prompt) -> mpsc::Receiver<Line> {
        let (to_chat, lines) = mpsc::channel(1);
        std::thread::spawn(move || match self.0 {
            Source::Terminal(editor) => read_terminal(*editor, &prompt, &to_chat),
            Source::Pipe => read_pipe(&to_chat),
        });
        lines
    }
}

fn read_terminal(mut editor: DefaultEditor, prompt: &Prompt, to_chat: &mpsc::Sender<Line>) {
    loop {
        let prompt = prompt.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match editor.readline(&prompt) {
            Ok(text) => {
                // Without a history file nothing typed is left on the disk.
                let _ = editor.add_history_entry(text.as_str());
                let (done, wait) = blocking::sync_channel(1);
                if to_chat.blocking_send(Line { text, _done: done }).is_err() {
                    return;
                }
                let _ = wait.recv_timeout(PROMPT_WAITS);
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return,
            Err(error) => {
                tracing::error!("the terminal cannot be read: {error}");
                return;
            }
        }
    }
}

fn read_pipe(to_chat: &mpsc::Sender<Line>) {
    for text in std::io::stdin().lock().lines() {
        let Ok(text) = text else { return };
        let (done, _) = blocking::sync_channel(1);
        if to_chat.blocking_send(Line { text, _done: done }).is_err() {
            return;
        }
    }
}
