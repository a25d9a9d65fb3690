"""Packages that offer storages to asyncstore, installed for real by the tests."""
