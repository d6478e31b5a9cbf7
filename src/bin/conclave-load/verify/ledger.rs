//! What was said and what became of it, over all sessions of a run.
//!
//! It grows with each message (some 40 bytes) until it has been compared with the histories; who runs for hours makes a
//! new one then.

use std::collections::HashMap;

use super::Faults;

/// Who can speak: a user in a session.
#[derive(Debug)]
struct Speaker {
    session: u32,
    user_id: String,
    said: Vec<Said>,
}

/// A message of a speaker; its number is its place in the speaker's list.
#[derive(Clone, Copy, Debug)]
struct Said {
    /// When it was due, in microseconds.
    due: u64,
    /// What it was acknowledged with; 0 while it was not.
    seq: u64,
    sent: bool,
    /// It was sent more than once, or refused: others may have overtaken it.
    repeated: bool,
}

/// What members saw under a `seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Entry {
    #[default]
    Unseen,
    Message {
        speaker: u32,
        number: u32,
    },
}

#[derive(Debug)]
struct Session {
    /// The last event before the run's first.
    base: u64,
    speakers: Vec<u32>,
    /// What was seen from `base + 1` on.
    seen: Vec<Entry>,
    /// Of its messages that were acknowledged.
    service: Service,
}

/// How a session was served, as those who spoke in it felt it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    /// The longest that a message waited from when it was due until it was acknowledged, in microseconds.
    pub(crate) longest_wait: u64,
    pub(crate) acknowledged: u64,
}

/// What a message says of itself, as it came or as the history has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard<'a> {
    pub(crate) session: u32,
    pub(crate) sender_id: &'a str,
    /// As [`Ledger::client_msg_id`] made it.
    pub(crate) client_msg_id: Option<&'a str>,
}

/// Which of the run's messages something heard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) speaker: u32,
    pub(crate) number: u32,
    /// When it was due, in microseconds.
    pub(crate) due: u64,
}

/// A session's history, as it was read.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// The messages, ascending; `None` where a message is none of the run's.
    pub(crate) messages: Vec<(u64, Option<Source>)>,
    /// The last event of any kind.
    pub(crate) head: u64,
}

/// All that was said and heard.
#[derive(Debug)]
pub(crate) struct Ledger {
    run: String,
    sessions: Vec<Session>,
    speakers: Vec<Speaker>,
    faults: Faults,
}

impl Ledger {
    /// An empty one. `run` sets this run's messages apart from all others of the same users; letters and digits.
    pub(crate) fn new(run: &str) -> Self {
        Self { run: run.to_owned(), sessions: Vec::new(), speakers: Vec::new(), faults: Faults::default() }
    }

    /// Adds a session whose last event so far is `base`.
    pub(crate) fn add_session(&mut self, base: u64) -> u32 {
        self.sessions.push(Session { base, speakers: Vec::new(), seen: Vec::new(), service: Service::default() });
        (self.sessions.len() - 1) as u32
    }

    /// Adds one who speaks there.
    pub(crate) fn add_speaker(&mut self, session: u32, user_id: &str) -> u32 {
        let speaker = self.speakers.len() as u32;
        self.speakers.push(Speaker { session, user_id: user_id.to_owned(), said: Vec::new() });
        self.sessions[session as usize].speakers.push(speaker);
        speaker
    }

    /// The last event of a session before the run.
    pub(crate) fn base(&self, session: u32) -> u64 {
        self.sessions[session as usize].base
    }

    /// A message is due; tells its number.
    pub(crate) fn say(&mut self, speaker: u32, due: u64) -> u32 {
        let said = &mut self.speakers[speaker as usize].said;
        said.push(Said { due, seq: 0, sent: false, repeated: false });
        (said.len() - 1) as u32
    }

    /// The id under which a message is sent, each time.
    pub(crate) fn client_msg_id(&self, speaker: u32, number: u32) -> String {
        format!("{}.{speaker}.{number}", self.run)
    }

    /// A message is sent; tells whether for the first time.
    pub(crate) fn send(&mut self, speaker: u32, number: u32) -> bool {
        let said = &mut self.speakers[speaker as usize].said[number as usize];
        !std::mem::replace(&mut said.sent, true)
    }

    /// A message has to be sent again, or was refused.
    pub(crate) fn repeat(&mut self, speaker: u32, number: u32) {
        self.speakers[speaker as usize].said[number as usize].repeated = true;
    }

    /// A message was acknowledged; tells how long after it was due. Again: with another `seq`, it is out of place.
    pub(crate) fn acknowledge(&mut self, speaker: u32, number: u32, seq: u64, now: u64) -> u64 {
        let speaker = &mut self.speakers[speaker as usize];
        let said = &mut speaker.said[number as usize];
        if said.seq != 0 && said.seq != seq {
            self.faults.disordered += 1;
        }
        let service = &mut self.sessions[speaker.session as usize].service;
        service.acknowledged += u64::from(said.seq == 0);
        said.seq = seq;
        let waited = now.saturating_sub(said.due);
        service.longest_wait = service.longest_wait.max(waited);
        waited
    }

    /// Which message something heard is; `None` where it is none of this run's, which is counted.
    ///
    /// A text is checked by the caller, who says [`Ledger::unreadable`] if it is wrong.
    pub(crate) fn identify(&mut self, heard: Heard<'_>) -> Option<Source> {
        let source = self.find(&heard);
        if source.is_none() {
            self.faults.misattributed += 1;
        }
        source
    }

    fn find(&self, heard: &Heard<'_>) -> Option<Source> {
        let numbers = heard.client_msg_id?.strip_prefix(self.run.as_str())?.strip_prefix('.')?;
        let (speaker, number) = numbers.split_once('.')?;
        let (index, number) = (speaker.parse().ok()?, number.parse().ok()?);
        let speaker = self.speakers.get(index as usize)?;
        let said = speaker.said.get(number as usize)?;
        let fits = speaker.session == heard.session && speaker.user_id == heard.sender_id;
        fits.then_some(Source { speaker: index, number, due: said.due })
    }

    /// A member was shown a message under this `seq`: it has to be the one that all others are shown there.
    pub(crate) fn seen(&mut self, session: u32, seq: u64, source: Source) {
        let Session { base, seen, .. } = &mut self.sessions[session as usize];
        let Some(at) = seq.checked_sub(*base + 1) else { return };
        let at = at as usize;
        // What a server makes up is not to cost memory: no session gets so far ahead of what was said in it.
        if at > seen.len() + 1_000_000 {
            return;
        }
        if seen.len() <= at {
            seen.resize(at + 1, Entry::Unseen);
        }
        let now = Entry::Message { speaker: source.speaker, number: source.number };
        match seen[at] {
            Entry::Unseen => seen[at] = now,
            before @ Entry::Message { .. } if before == now => {}
            Entry::Message { .. } => self.faults.disordered += 1,
        }
    }

    /// A text could not be read, or was not what was sent.
    pub(crate) fn unreadable(&mut self) {
        self.faults.undecryptable += 1;
    }

    /// Compares a session's history with what was acknowledged and seen in it.
    pub(crate) fn compare(&mut self, session: u32, past: &Past) {
        let mut found: HashMap<(u32, u32), u64> = HashMap::with_capacity(past.messages.len());
        let mut newest: HashMap<u32, u32> = HashMap::new();
        let mut last = 0;
        for &(seq, source) in &past.messages {
            self.faults.disordered += u64::from(seq <= last);
            last = seq;
            let Some(Source { speaker, number, .. }) = source else { continue };
            if found.insert((speaker, number), seq).is_some() {
                self.faults.duplicated += 1;
                continue;
            }
            if self.speakers[speaker as usize].said[number as usize].repeated {
                continue;
            }
            let newest = newest.entry(speaker).or_default();
            self.faults.disordered += u64::from(*newest > number);
            *newest = (*newest).max(number);
        }
        self.compare_acknowledged(session, &found);
        self.compare_seen(session, &found);
    }

    fn compare_acknowledged(&mut self, session: u32, found: &HashMap<(u32, u32), u64>) {
        for &speaker in &self.sessions[session as usize].speakers {
            let said = &self.speakers[speaker as usize].said;
            for (number, said) in (0..).zip(said).filter(|(_, said)| said.seq != 0) {
                match found.get(&(speaker, number)) {
                    Some(seq) if *seq == said.seq => {}
                    Some(_) => self.faults.disordered += 1,
                    None => self.faults.missing += 1,
                }
            }
        }
    }

    /// What was shown and not acknowledged has to be there too; what was acknowledged has been looked at.
    fn compare_seen(&mut self, session: u32, found: &HashMap<(u32, u32), u64>) {
        let Session { base, seen, .. } = &self.sessions[session as usize];
        for (seq, entry) in (*base + 1..).zip(seen) {
            let Entry::Message { speaker, number } = *entry else { continue };
            let acknowledged = self.speakers[speaker as usize].said[number as usize].seq != 0;
            match found.get(&(speaker, number)) {
                Some(at) if *at == seq => {}
                Some(_) => self.faults.disordered += 1,
                None if acknowledged => {}
                None => self.faults.missing += 1,
            }
        }
    }

    /// What one connection was given, when everything up to `head` should have come.
    pub(crate) fn add(&mut self, faults: Faults) {
        self.faults += faults;
    }

    /// What was wrong so far.
    pub(crate) const fn faults(&self) -> Faults {
        self.faults
    }

    /// How each session was served until `now`: what has no answer by then counts for the wait.
    pub(crate) fn services(&self, now: u64) -> Vec<Service> {
        let mut services: Vec<Service> = self.sessions.iter().map(|session| session.service).collect();
        for speaker in &self.speakers {
            let wait = &mut services[speaker.session as usize].longest_wait;
            let open = speaker.said.iter().filter(|said| said.seq == 0).map(|said| now.saturating_sub(said.due));
            *wait = open.fold(*wait, u64::max);
        }
        services
    }
}
