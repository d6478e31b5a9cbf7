//! Close codes, each with whether the client should come back.

/// Why the server ends a WebSocket (RFC 6455, section 7.4; 4000 and up are Conclave's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// The client asked for it.
    Normal = 1000,
    /// The node goes away.
    GoingAway = 1001,
    /// Against RFC 6455.
    Protocol = 1002,
    /// A binary frame.
    Unsupported = 1003,
    /// Invalid UTF-8 in a text frame.
    InvalidText = 1007,
    /// A frame larger than the limit.
    TooLarge = 1009,
    /// The node restarts or drains.
    Restart = 1012,
    /// Not authenticated, or the token died.
    Unauthenticated = 4001,
    /// No `authenticate` in time.
    AuthenticateTimeout = 4002,
    /// Nothing but unreadable frames.
    Unreadable = 4003,
    /// The client does not read.
    TooSlow = 4004,
    /// The node is cut off from the cluster.
    CutOff = 4005,
    /// No pong in time.
    NoPong = 4006,
}

impl CloseCode {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// Whether the client should connect again.
    pub const fn reconnect(self) -> bool {
        match self {
            Self::Normal
            | Self::GoingAway
            | Self::Restart
            | Self::AuthenticateTimeout
            | Self::TooSlow
            | Self::CutOff
            | Self::NoPong => true,
            Self::Protocol
            | Self::Unsupported
            | Self::InvalidText
            | Self::TooLarge
            | Self::Unauthenticated
            | Self::Unreadable => false,
        }
    }

    /// The reason sent beside the code.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Normal => "",
            Self::GoingAway => "the node goes away",
            Self::Protocol => "against RFC 6455",
            Self::Unsupported => "text frames only",
            Self::InvalidText => "invalid UTF-8",
            Self::TooLarge => "frame too large",
            Self::Restart => "the node restarts",
            Self::Unauthenticated => "not authenticated",
            Self::AuthenticateTimeout => "no authenticate in time",
            Self::Unreadable => "nothing but unreadable frames",
            Self::TooSlow => "the client does not read",
            Self::CutOff => "cut off from the cluster",
            Self::NoPong => "no pong in time",
        }
    }
}
