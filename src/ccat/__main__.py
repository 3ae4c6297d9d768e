import gc

gc.disable()  # what is imported stays: to look for garbage in it would take a third of the time that a command takes

from ccat.cli import main  # noqa: E402 - only after the line above

gc.freeze()
gc.enable()

if __name__ == "__main__":
    main()
