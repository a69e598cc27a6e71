//! Hookline: an MQTT broker that stores what it acknowledges. The floors, lowest first.

pub mod admin;
pub mod app;
pub mod broker;
pub mod bus;
pub mod command;
pub mod config;
pub mod hook;
pub mod model;
pub mod mqtt;
pub mod store;
pub mod telemetry;
