//! Which engines there are, by name.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::rivals::works::Shape;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Engine {
    /// ringlog with its writer thread
    Ringlog,
    /// ringlog driven by the thread that appends
    RinglogDriven,
    /// raft-engine
    #[value(name = "raft-engine")]
    Raft,
    /// okaywal
    Okaywal,
    /// nodedb-wal
    NodedbWal,
    /// seglog
    Seglog,
    /// tephra
    Tephra,
    /// fjall
    Fjall,
    /// SQLite, through rusqlite
    Sqlite,
    /// walrus-rust
    Walrus,
    /// umadb-core, for opening and replay only
    Umadb,
    /// Group commit with no log around it, to compare with
    Bare,
}

impl Engine {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it is somebody else's.
    pub(crate) fn is_rival(self) -> bool {
        !matches!(self, Self::Ringlog | Self::RinglogDriven | Self::Bare)
    }

    /// Whether it can do work of this shape.
    pub(crate) fn can(self, shape: &Shape) -> bool {
        let several = shape.outstanding > 1;
        match self {
            Self::Ringlog | Self::Bare => true,
            Self::RinglogDriven => shape.producers == 1 && !several && !shape.unsynced,
            // All its appends are durable; it is the one with appends on their way.
            Self::Tephra => !shape.unsynced,
            // Every commit is durable.
            Self::Okaywal => !several && !shape.unsynced,
            Self::Umadb => false,
            _ => !several,
        }
    }

    /// Whether it can be opened again, and read from end to end.
    pub(crate) fn can_replay(self) -> bool {
        // What its caller drives is opened and read as any other log.
        !matches!(self, Self::RinglogDriven | Self::Bare)
    }
}

/// Carries out `$body` with `$rival` standing for the adapter of `$engine`, or `$driven`.
macro_rules! with_rival {
    ($engine:expr, $rival:ident => $body:expr, driven => $driven:expr) => {
        match $engine {
            $crate::rivals::engine::Engine::Ringlog => {
                type $rival = $crate::contender::Ringlog;
                $body
            }
            $crate::rivals::engine::Engine::RinglogDriven => $driven,
            $crate::rivals::engine::Engine::Raft => {
                type $rival = $crate::rivals::raft_engine::RaftEngine;
                $body
            }
            $crate::rivals::engine::Engine::Okaywal => {
                type $rival = $crate::rivals::okaywal::Okaywal;
                $body
            }
            $crate::rivals::engine::Engine::NodedbWal => {
                type $rival = $crate::rivals::nodedb_wal::NodedbWal;
                $body
            }
            $crate::rivals::engine::Engine::Seglog => {
                type $rival = $crate::rivals::seglog::Seglog;
                $body
            }
            $crate::rivals::engine::Engine::Tephra => {
                type $rival = $crate::rivals::tephra::Tephra;
                $body
            }
            $crate::rivals::engine::Engine::Fjall => {
                type $rival = $crate::rivals::fjall::Fjall;
                $body
            }
            $crate::rivals::engine::Engine::Sqlite => {
                type $rival = $crate::rivals::sqlite::Sqlite;
                $body
            }
            $crate::rivals::engine::Engine::Walrus => {
                type $rival = $crate::rivals::walrus::Walrus;
                $body
            }
            $crate::rivals::engine::Engine::Umadb => {
                type $rival = $crate::rivals::umadb::Umadb;
                $body
            }
            $crate::rivals::engine::Engine::Bare => {
                type $rival = $crate::group_commit::GroupCommit;
                $body
            }
        }
    };
}
pub(crate) use with_rival;
