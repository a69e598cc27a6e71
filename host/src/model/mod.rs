//! The words of the house: plain data, cheap to clone, without I/O. Every other floor speaks them;
//! this floor imports nothing of ours.

pub mod clock;
pub mod delivery;
pub mod event;
pub mod hold;
pub mod id;
pub mod message;
pub mod properties;
pub mod reason;
pub mod report;
pub mod session;
pub mod topic;
pub mod utc;
pub mod value;
