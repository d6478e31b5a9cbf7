//! `conclave admin`: what operators see of a running cluster, and the few things that they do to it.
//!
//! It reads and writes the store that the nodes share, and talks to no node: so it works from any machine with the same
//! configuration, and also when a node hangs. Nodes find what it did with their next renewal of the lease (a drain) or
//! their next sweep (a disabled account, revoked tokens). Invariant: nothing it shows is a token, a key or a text.

mod report;
mod table;
#[cfg(test)]
mod tests;

use clap::{Args, Subcommand};

pub use report::Report;

use report::{NodeView, SessionView, UserView};

use crate::protocol::{NodeId, SessionId};
use crate::store::{Standing, Store, StoreError, UserSummary};

/// The arguments of `conclave admin`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Answers in JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What there is to see and to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// The nodes that are alive, with their versions, connections and sessions
    Nodes,
    /// The sessions, by id
    Sessions {
        /// How many to show
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        limit: u64,
        /// Goes on behind this one
        #[arg(long, value_name = "SESSION")]
        after: Option<SessionId>,
    },
    /// One session: its owner, members, room key and latest event
    Session {
        /// Its id
        id: SessionId,
    },
    /// One account, to see, to disable, to enable, or to log out everywhere
    User {
        /// The name that they log in with
        name: String,
        /// What to do to it
        #[command(flatten)]
        change: UserChange,
    },
    /// Asks a node to give up its sessions and connections and take no new ones, until it is restarted
    Drain {
        /// Its id, as `nodes` shows it
        node: NodeId,
    },
}

/// What can be done to an account: one of these, or nothing.
#[derive(Clone, Copy, Debug, Default, Args)]
#[group(multiple = false)]
pub struct UserChange {
    /// Ends its tokens and memberships; it cannot log in until it is enabled
    #[arg(long)]
    pub disable: bool,
    /// Lets a disabled account log in again; it is a member of nothing
    #[arg(long)]
    pub enable: bool,
    /// Ends its tokens: everybody who is logged in with it has to log in again
    #[arg(long)]
    pub revoke_tokens: bool,
}

/// Why nothing was shown or done.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The store did not answer, or not in time.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No such node lives.
    #[error("no node {0} is alive; `conclave admin nodes` shows those that are")]
    NoNode(NodeId),
    /// There is no such session.
    #[error("there is no session {0}, or it has ended")]
    NoSession(SessionId),
    /// There is no such account.
    #[error("there is no account of that name")]
    NoUser,
    /// It is not disabled.
    #[error("the account is not disabled")]
    NotDisabled,
    /// It cannot be disabled any more, or is already.
    #[error("the account is disabled or closed already")]
    NotLive,
}

/// Does what was asked, and tells what there is to tell.
///
/// # Errors
/// If it could not be done, or there is no such thing.
pub async fn run(store: &dyn Store, command: &Command) -> Result<Report, AdminError> {
    match command {
        Command::Nodes => Ok(Report::Nodes(store.nodes().await?.into_iter().map(NodeView::from).collect())),
        Command::Sessions { limit, after } => {
            let page = store.sessions_overview(*after, *limit).await?;
            let sessions = page.rows.into_iter().map(SessionView::from).collect();
            Ok(Report::Sessions { sessions, more: page.more })
        }
        Command::Session { id } => {
            let session = store.session_overview(*id).await?.ok_or(AdminError::NoSession(*id))?;
            Ok(Report::Session(session.into()))
        }
        Command::User { name, change } => {
            let before = user(store, name).await?;
            let tokens_ended = apply(store, &before, *change).await?;
            Ok(Report::User(UserView::after(user(store, name).await?, tokens_ended)))
        }
        Command::Drain { node } => {
            if store.ask_to_drain(*node).await? {
                Ok(Report::Draining { node: *node })
            } else {
                Err(AdminError::NoNode(*node))
            }
        }
    }
}

async fn user(store: &dyn Store, name: &str) -> Result<UserSummary, AdminError> {
    store.user_overview(name).await?.ok_or(AdminError::NoUser)
}

/// Changes the account; the tokens that ended by it, where any could.
async fn apply(store: &dyn Store, user: &UserSummary, change: UserChange) -> Result<Option<u64>, AdminError> {
    if change.disable {
        if user.standing != Standing::Live {
            return Err(AdminError::NotLive);
        }
        store.disable_user(user.user_id, store.now().await?).await?;
        Ok(Some(user.tokens))
    } else if change.enable {
        if store.enable_user(user.user_id).await? { Ok(None) } else { Err(AdminError::NotDisabled) }
    } else if change.revoke_tokens {
        Ok(Some(store.revoke_tokens(user.user_id).await?))
    } else {
        Ok(None)
    }
}
