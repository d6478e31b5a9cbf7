//! What `conclave admin` answers: the same facts as text for people and as JSON for programs.

use serde::Serialize;

use super::table::{facts, shown, table};
use crate::protocol::{NodeId, SessionId, Timestamp, UserId};
use crate::session::state::{E2ee, MarkReason, Phase};
use crate::store::{NodeRow, SessionSummary, Standing, UserSummary};

/// An answer.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// Who is alive.
    Nodes(Vec<NodeView>),
    /// A page of sessions.
    Sessions {
        /// By id.
        sessions: Vec<SessionView>,
        /// Whether there are more behind them.
        more: bool,
    },
    /// One session.
    Session(SessionView),
    /// One account, as it is after what was done to it.
    User(UserView),
    /// A node that was asked to drain.
    Draining {
        /// Which.
        node: NodeId,
    },
}

/// A node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeView {
    node: NodeId,
    version: String,
    started_at: Timestamp,
    /// Until when it counts as alive, unless it renews.
    lease_until: Timestamp,
    /// When it last had the bus.
    bus_ok_at: Option<Timestamp>,
    bus_ok: bool,
    draining: bool,
    connections: u64,
    sessions: u64,
}

/// A session.
#[derive(Clone, Debug, Serialize)]
pub struct SessionView {
    session_id: SessionId,
    name: Option<String>,
    /// The node that owns it; it may be dead.
    owner: Option<NodeId>,
    members: u64,
    last_seq: u64,
    last_time: Timestamp,
    /// Commits so far.
    version: u64,
    /// Nothing where it is not encrypted.
    room_key: Option<KeyView>,
}

/// The room key of an encrypted session, as far as the server knows of it.
#[derive(Clone, Debug, Serialize)]
struct KeyView {
    /// The epoch in use.
    epoch: Option<u64>,
    members_without_it: u64,
    phase: PhaseView,
}

/// Where its replacement stands.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
enum PhaseView {
    /// Nothing to do.
    Steady,
    /// Who speaks next replaces the key.
    Marked {
        /// Why.
        reasons: Vec<&'static str>,
    },
    /// Somebody is replacing it.
    Rotating {
        /// The next epoch.
        epoch: u64,
        /// Who.
        rotator: UserId,
        /// Since when.
        since: Timestamp,
        /// When somebody else takes over.
        deadline: Timestamp,
    },
}

/// An account.
#[derive(Clone, Debug, Serialize)]
pub struct UserView {
    user_id: UserId,
    name: String,
    created_at: Timestamp,
    /// `live`, `disabled` or `closed`.
    standing: &'static str,
    /// Since when it is not live.
    since: Option<Timestamp>,
    sessions: u64,
    tokens: u64,
    inbox: u64,
    /// Tokens that this command has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_ended: Option<u64>,
}

impl From<NodeRow> for NodeView {
    fn from(row: NodeRow) -> Self {
        Self {
            node: row.node_id,
            version: row.report.program,
            started_at: row.started_at,
            lease_until: row.expires_at,
            bus_ok_at: row.bus_ok_at,
            bus_ok: row.report.bus_ok,
            draining: row.drain,
            connections: row.report.connections,
            sessions: row.report.sessions,
        }
    }
}

impl From<SessionSummary> for SessionView {
    fn from(session: SessionSummary) -> Self {
        let room_key = match session.e2ee {
            E2ee::Off { .. } => None,
            E2ee::On(key) => Some(KeyView {
                epoch: key.current.map(|current| current.epoch.0),
                members_without_it: session.without_key,
                phase: key.phase.into(),
            }),
        };
        Self {
            session_id: session.session_id,
            name: session.name,
            owner: session.owner,
            members: session.members,
            last_seq: session.last_seq,
            last_time: session.last_time,
            version: session.version,
            room_key,
        }
    }
}

impl From<Phase> for PhaseView {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Steady => Self::Steady,
            Phase::Marked { reasons } => {
                Self::Marked { reasons: reasons.into_iter().map(MarkReason::as_str).collect() }
            }
            Phase::Rotating(rotation) => Self::Rotating {
                epoch: rotation.epoch.0,
                rotator: rotation.rotator,
                since: rotation.since,
                deadline: rotation.deadline,
            },
        }
    }
}

impl UserView {
    pub(super) fn after(user: UserSummary, tokens_ended: Option<u64>) -> Self {
        Self { tokens_ended, ..user.into() }
    }
}

impl From<UserSummary> for UserView {
    fn from(user: UserSummary) -> Self {
        let (standing, since) = match user.standing {
            Standing::Live => ("live", None),
            Standing::Disabled(at) => ("disabled", Some(at)),
            Standing::Closed(at) => ("closed", Some(at)),
        };
        Self {
            user_id: user.user_id,
            name: user.name,
            created_at: user.created_at,
            standing,
            since,
            sessions: user.sessions,
            tokens: user.tokens,
            inbox: user.inbox,
            tokens_ended: None,
        }
    }
}

impl Report {
    /// One JSON value.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("structs of strings, numbers and times") + "\n"
    }

    /// For people.
    pub fn text(&self) -> String {
        match self {
            Self::Nodes(nodes) => {
                let headings = ["NODE", "VERSION", "STARTED", "LEASE UNTIL", "BUS", "CONNECTIONS", "SESSIONS", "STATE"];
                table(headings, &nodes.iter().map(NodeView::row).collect::<Vec<_>>(), "no node is alive")
            }
            Self::Sessions { sessions, more } => {
                let headings = ["SESSION", "NAME", "OWNER", "MEMBERS", "LAST SEQ", "ROOM KEY"];
                let mut text = table(
                    headings,
                    &sessions.iter().map(SessionView::row).collect::<Vec<_>>(),
                    "there are no sessions",
                );
                if let Some(last) = sessions.last().filter(|_| *more) {
                    text.push_str(&format!("there are more: --after {}\n", last.session_id));
                }
                text
            }
            Self::Session(session) => session.facts(),
            Self::User(user) => user.facts(),
            Self::Draining { node } => {
                format!("node {node} is asked to drain; it hears of it when it next renews its lease\n")
            }
        }
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

impl NodeView {
    fn row(&self) -> [String; 8] {
        [
            self.node.to_string(),
            shown(&self.version),
            self.started_at.to_string(),
            self.lease_until.to_string(),
            if self.bus_ok { "ok".to_owned() } else { "away".to_owned() },
            self.connections.to_string(),
            self.sessions.to_string(),
            if self.draining { "draining".to_owned() } else { "serving".to_owned() },
        ]
    }
}

impl SessionView {
    fn row(&self) -> [String; 6] {
        [
            self.session_id.to_string(),
            or_dash(self.name.as_deref().map(shown)),
            or_dash(self.owner),
            self.members.to_string(),
            self.last_seq.to_string(),
            self.room_key.as_ref().map_or_else(|| "off".to_owned(), KeyView::short),
        ]
    }

    fn facts(&self) -> String {
        let mut list = vec![
            ("session", self.session_id.to_string()),
            ("name", or_dash(self.name.as_deref().map(shown))),
            ("owner", or_dash(self.owner)),
            ("members", self.members.to_string()),
            ("last seq", format!("{} at {}", self.last_seq, self.last_time)),
            ("commits", self.version.to_string()),
        ];
        match &self.room_key {
            None => list.push(("encryption", "off".to_owned())),
            Some(key) => {
                list.push(("encryption", "on".to_owned()));
                list.push(("epoch", or_dash(key.epoch)));
                list.push(("without it", format!("{} members", key.members_without_it)));
                list.push(("phase", key.phase.text()));
            }
        }
        facts(&list)
    }
}

impl KeyView {
    fn short(&self) -> String {
        let phase = match &self.phase {
            PhaseView::Steady => "",
            PhaseView::Marked { .. } => ", marked",
            PhaseView::Rotating { .. } => ", rotating",
        };
        format!("epoch {}{phase}", or_dash(self.epoch))
    }
}

impl PhaseView {
    fn text(&self) -> String {
        match self {
            Self::Steady => "steady".to_owned(),
            Self::Marked { reasons } => format!("marked ({}): who speaks next replaces the key", reasons.join(", ")),
            Self::Rotating { epoch, rotator, since, deadline } => {
                format!("rotating to epoch {epoch} by {rotator}, since {since}, until {deadline}")
            }
        }
    }
}

impl UserView {
    fn facts(&self) -> String {
        let since = self.since.map(|since| format!(" since {since}")).unwrap_or_default();
        let mut list = vec![
            ("user", self.user_id.to_string()),
            ("name", shown(&self.name)),
            ("created", self.created_at.to_string()),
            ("account", format!("{}{since}", self.standing)),
            ("sessions", self.sessions.to_string()),
            ("tokens", self.tokens.to_string()),
            ("inbox", self.inbox.to_string()),
        ];
        if let Some(ended) = self.tokens_ended {
            list.push(("ended", format!("{ended} tokens; nodes cut their connections within one sweep")));
        }
        facts(&list)
    }
}
